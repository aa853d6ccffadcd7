"""What a node logs while a step runs is kept with the step, bounded, without secrets, also of lost attempts."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextvars import copy_context

import pytest
import structlog

from core import logs
from core.errors import Transient
from operations import protocol
from operations.models import Step
from operations.recovery import lose
from operations.step_log import MOST_BYTES, MOST_LINES, StepLog
from tests.operations import parts

log = structlog.get_logger("tests")


@pytest.fixture
def lane() -> Iterator[io.StringIO]:
    """What this process logs, as its lane would write it into its file."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logging.getLogger().handlers[0].formatter)
    logging.getLogger().addHandler(handler)
    yield written
    logging.getLogger().removeHandler(handler)


def _line(event: str = "said", **fields: object) -> dict:
    return {"timestamp": "2026-03-01T13:02:11.004Z", "level": "info", "event": event, **fields}


def _run(bells, **act: object) -> Step:
    operation = parts.begin(parts.volume(), {"act": "talk", **act})
    bells.answer()
    return parts.steps_of(operation)[0]


def test_the_lines_of_a_step_are_kept_with_its_row(bells):
    @parts.act("talk")
    def talk(run):
        log.info("the image was fetched", bytes=17, source="a file")
        logging.getLogger("library").warning("a library says %s", "so")
        log.debug("nobody needs this")

    kept = _run(bells).log.splitlines()
    assert [line.split(" ", 1)[1] for line in kept] == [
        'attempt 1 info the image was fetched bytes=17 source="a file"',
        "attempt 1 warning a library says so",
    ]


def test_a_step_that_says_nothing_keeps_nothing(bells):
    assert parts.begin(parts.volume(), {"act": "nothing"})
    bells.answer()
    assert Step.objects.get().log == ""


def test_a_thread_that_copies_the_context_speaks_for_its_step(bells):
    @parts.act("talk")
    def talk(run):
        thread = threading.Thread(target=copy_context().run, args=(log.info, "from beside"))
        thread.start()
        thread.join()
        log.info("from within")

    assert [line.rpartition("info ")[2] for line in _run(bells).log.splitlines()] == ["from beside", "from within"]


def test_two_steps_at_once_do_not_hear_each_other(bells, in_threads):
    both = threading.Barrier(2)

    @parts.act("talk")
    def talk(run):
        both.wait(60)
        log.info("mine", number=run.params["number"])
        both.wait(60)

    for number in (1, 2):
        parts.begin(parts.volume(), {"act": "talk", "number": number})
    for future in in_threads(*(lambda bell=bell: protocol.run_step(*bell) for bell in list(bells))):
        future.result(60)
    assert sorted(step.log.rpartition(" ")[2] for step in Step.objects.all()) == ["number=1", "number=2"]


def test_the_lines_of_every_attempt_stay(bells, pauses_are_over):
    @parts.act("talk")
    def talk(run):
        log.info("trying")
        if run.step.attempt == 1:
            raise Transient("not yet")

    step = _run(bells)
    for bell in pauses_are_over():
        protocol.run_step(*bell)
    step.refresh_from_db()
    said = [line.split(" ", 1)[1] for line in step.log.splitlines()]
    assert said == ["attempt 1 info trying", "attempt 2 info trying"]


def test_the_keeper_writes_the_lines_of_an_attempt_that_never_ends(bells, in_threads):
    goes_on = threading.Event()

    @parts.act("talk")
    def talk(run):
        log.info("half of it is done")
        assert goes_on.wait(60)

    operation = parts.begin(parts.volume(), {"act": "talk"})
    [attempt] = in_threads(lambda: protocol.run_step(*bells.pop(0)))
    step = parts.steps_of(operation)[0]
    deadline = time.monotonic() + 60
    while "half of it" not in step.log and time.monotonic() < deadline:
        time.sleep(0.02)
        step.refresh_from_db()
    lose(step, "the test says so")
    goes_on.set()
    attempt.result(60)
    assert "half of it" in Step.objects.get(pk=step.pk).log


def test_undo_speaks_in_the_same_log(bells):
    parts.undos["talk"] = lambda run: log.info("taken away") or "it was taken away"

    @parts.act("talk")
    def talk(run):
        log.info("made")

    operation = parts.begin(parts.volume(), {"act": "talk", "task": "part"}, {"act": "refuse"})
    bells.answer()
    step = parts.steps_of(operation)[0]
    assert [line.rpartition(" ")[2] for line in step.log.splitlines()] == ["made", "away"]


def test_an_unforeseen_fault_is_kept_without_its_traceback(bells):
    operation = parts.begin(parts.volume(), {"act": "stumble"})
    bells.answer()
    kept = parts.steps_of(operation)[0].log
    assert "nobody foresaw" in kept
    assert "Traceback" not in kept


def test_the_newest_200_lines_are_kept():
    kept = StepLog("", 1)
    for number in range(MOST_LINES + 50):
        kept.add(_line(number=number))
    lines = kept.text().splitlines()
    assert len(lines) == MOST_LINES
    assert lines[0].endswith("number=50")
    assert lines[-1].endswith("number=249")


@pytest.mark.parametrize("said", ["x" * 5000, "ü" * 5000, "\x1b" * 5000])
def test_a_log_never_exceeds_64_kib(said):
    kept = StepLog("", 1)
    for _ in range(100):
        kept.add(_line(said))
    assert 0 < len(kept.text().encode()) <= MOST_BYTES
    again = StepLog(kept.text(), 2)
    again.add(_line("one more"))
    assert len(again.text().encode()) <= MOST_BYTES
    assert again.text().endswith("attempt 2 info one more")


def test_what_no_database_takes_is_kept_as_words(bells):
    @parts.act("talk")
    def talk(run):
        log.info("zero \x00, escape \x1b, two\nlines", file="a\udcff\x00b")

    [line] = _run(bells).log.splitlines()
    assert "zero \\x00, escape \\x1b, two lines" in line
    assert "\x00" not in line


@pytest.mark.parametrize(
    "secret",
    [
        "http://user:sesame-open@host/image.gz",
        "https://host/image.gz?X-Signature=sesame-open",
        "Authorization: Bearer sesame-open.1",
        "the token vdc_sesameopen-123456789_123456789_123456789_123",
    ],
)
def test_secrets_reach_neither_the_step_nor_the_lane(bells, lane, secret):
    @parts.act("talk")
    def talk(run):
        log.info(f"from {secret}", source=secret)
        raise ValueError(f"cannot read {secret}")

    kept = _run(bells).log
    assert "from" in kept
    assert "sesame" not in kept
    assert "cannot read" in lane.getvalue()
    assert "sesame" not in lane.getvalue()


def test_the_lines_of_a_lane_name_what_they_are_for(bells, lane):
    @parts.act("talk")
    def talk(run):
        log.info("here")

    with structlog.contextvars.bound_contextvars(request_id="req-of-test"):
        operation = parts.begin(parts.volume(), {"act": "talk"})
    assert operation.request_id == "req-of-test"
    bells.answer()
    said = [json.loads(line) for line in lane.getvalue().splitlines() if '"here"' in line]
    assert [(line["operation"], line["step"], line["subject"], line["request_id"]) for line in said] == [
        (operation.uid, "tests.plain", operation.subject_uid, "req-of-test")
    ]


def test_what_nobody_asked_for_over_http_has_no_request(bells):
    assert parts.begin(parts.volume()).request_id == ""


@pytest.mark.parametrize(
    "harmless", ["qemu+unix:///system?socket=/run/vdc/sock", "the table vdc_vdct22803", "a bearer"]
)
def test_what_only_looks_like_a_secret_stays(harmless):
    assert logs.hide_secrets(harmless) == harmless
