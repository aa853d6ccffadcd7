"""Cancel and retry keep their promise while workers die: they end, each undo counts once, and nothing is left over."""

from __future__ import annotations

import itertools
import zlib

import pytest

from operations import engine, register
from operations.models import Event, OperationSubject, Step
from operations.register import Verb
from operations.services import cancel_operation
from operations.states import Hold
from tests.hypervisor.object_server import ObjectServer
from tests.operations.parts import begin, steps_of, volume
from tests.operations.real_lanes import is_done, wait_for

MIB = 2**20
COPY_BYTES = 256 * MIB
PIECE = bytes(range(256)) * 4096  # 1 MiB, which is stored as it is


@pytest.fixture(autouse=True)
def retry_is_a_verb(verbs):
    register.nouns["volume"].verbs["retry"] = Verb("volume", "retry", frozenset({"error"}), "", None, resumes=True)


@pytest.fixture
def files(tmp_path):
    """`files(name)`: a path in a directory of the test; `files.journal(name)`: what a step wrote there."""

    def path(name: str) -> str:
        return str(tmp_path / name)

    path.journal = lambda name: (tmp_path / name).read_text().split("\n")[:-1] if (tmp_path / name).exists() else []
    path.there = lambda: sorted(file.name for file in tmp_path.glob("made-*"))
    path.touch = lambda name: (tmp_path / name).touch()
    return path


@pytest.fixture
def two_things(files):
    """An operation that makes one thing and then another, in whose making it waits for "go"; undo waits as told."""

    def begun(**second):
        first = {"act": "make", "task": "whole", "made": files("made-1"), "journal": files("journal-1")}
        then = {"act": "make", "task": "part", "made": files("made-2"), "journal": files("journal-2")}
        return begin(volume(), first, then | second)

    return begun


def cancel(operation):
    return cancel_operation(operation, requested_by="the tests")


def assert_undone_once(operation, files):
    assert operation.state == "cancelled"
    assert operation.undone == ["made-2 was removed", "made-1 was removed"]
    assert operation.held == []
    assert [step.state for step in steps_of(operation)] == ["undone", "undone"]
    assert files.there() == []
    subject = register.nouns["volume"].model.objects.get(uid=operation.subject_uid)
    assert (subject.state, subject.error) == ("deleted", None)
    assert not OperationSubject.objects.exclude(hold=Hold.CLOSED).exists()
    assert Event.objects.filter(operation_uid=operation.uid, name="volume.build.cancelled").count() == 1


def test_cancel_of_a_step_whose_worker_is_dead_is_undone_by_the_next_worker(lane, two_things, files, sweeping):
    operation = two_things(until=files("never"))
    with lane() as first:
        wait_for(lambda: files.journal("journal-2"), "the second step to begin")
        first.kill()
    cancel(operation)
    assert files.there() == ["made-1", "made-2"]
    with lane():
        wait_for(lambda: is_done(operation), "the end")
    assert_undone_once(operation, files)


def test_cancel_whose_worker_is_killed_as_it_hears_is_undone_by_the_next_worker(lane, two_things, files, sweeping):
    operation = two_things(until=files("never"))
    with lane() as first:
        wait_for(lambda: files.journal("journal-2"), "the second step to begin")
        cancel(operation)
        first.kill()
    with lane():
        wait_for(lambda: is_done(operation), "the end")
    assert_undone_once(operation, files)


def test_an_undo_whose_worker_is_killed_is_done_again_and_counts_once(lane, two_things, files, sweeping):
    operation = two_things(until=files("never"), undone_when=files("go"))
    with lane() as first:
        wait_for(lambda: files.journal("journal-2"), "the second step to begin")
        cancel(operation)
        wait_for(lambda: any(word.startswith("undo") for word in files.journal("journal-2")), "the undo to begin")
        first.kill()
    files.touch("go")
    with lane():
        wait_for(lambda: is_done(operation), "the end")
    assert_undone_once(operation, files)
    assert [word.split()[0] for word in files.journal("journal-2")] == ["began", "undo", "undo"]
    assert [past["outcome"] for past in steps_of(operation)[1].attempts] == ["cancelled", "lost", "undone"]


def test_a_worker_killed_after_the_end_changes_nothing(lane, two_things, files, sweeping):
    operation = two_things(until=files("never"))
    with lane() as first:
        wait_for(lambda: files.journal("journal-2"), "the second step to begin")
        cancel(operation)
        wait_for(lambda: is_done(operation), "the end")
        first.kill()
    before = list(Step.objects.filter(operation=operation).values())
    with lane("take-over"):
        next_one = begin(volume(), {"act": "nothing"})
        wait_for(lambda: is_done(next_one), "an operation after it")
    assert list(Step.objects.filter(operation=operation).values()) == before
    assert_undone_once(operation, files)


def test_a_retry_whose_workers_die_ends_and_makes_nothing_twice(lane, files, sweeping):
    whole = {"act": "make", "task": "whole", "made": files("made-1"), "journal": files("journal-1")}
    fails = {"act": "refuse_until", "until": files("mended"), "journal": files("journal-2")}
    last = {"act": "make", "task": "part", "made": files("made-3"), "journal": files("journal-3"), "until": files("go")}
    subject = volume()
    failed = begin(subject, whole, fails, last)
    with lane():
        wait_for(lambda: is_done(failed), "the failure")
    subject.refresh_from_db()
    assert (failed.state, subject.state, files.there()) == ("failed", "error", ["made-1"])
    files.touch("mended")
    retry = engine.begin(register.verb_named("volume.retry"), subject, requested_by="the tests")
    for attempt in (1, 2):
        with lane() as victim:
            wait_for(lambda attempt=attempt: f"began {attempt}" in files.journal("journal-3"), f"attempt {attempt}")
            victim.kill()
    files.touch("go")
    with lane():
        wait_for(lambda: is_done(retry), "the end")
    subject.refresh_from_db()
    assert (retry.state, subject.state, subject.error) == ("done", "available", None)
    assert files.journal("journal-1") == ["began 1", "did 1"], "what is whole is not made again"
    assert files.there() == ["made-1", "made-3"]
    assert [past["outcome"] for past in steps_of(retry)[2].attempts] == ["lost", "lost", "done"]


def test_cancel_of_a_retry_whose_worker_is_killed_undoes_all(lane, files, sweeping):
    whole = {"act": "make", "task": "whole", "made": files("made-1"), "journal": files("journal-1")}
    fails = {"act": "refuse_until", "until": files("mended"), "task": "plain"}
    last = {"act": "make", "task": "part", "made": files("made-2"), "journal": files("journal-2"), "until": files("x")}
    subject = volume()
    failed = begin(subject, whole, fails, last)
    with lane():
        wait_for(lambda: is_done(failed), "the failure")
    files.touch("mended")
    subject.refresh_from_db()
    retry = engine.begin(register.verb_named("volume.retry"), subject, requested_by="the tests")
    with lane() as victim:
        wait_for(lambda: files.journal("journal-2"), "the last step to begin")
        cancel(retry)
        victim.kill()
    with lane():
        wait_for(lambda: is_done(retry), "the end")
    subject.refresh_from_db()
    assert (retry.state, subject.state, files.there()) == ("cancelled", "deleted", [])
    assert retry.undone == ["made-2 was removed", "made-1 was removed"]


def test_a_copy_that_is_cancelled_stops_and_leaves_no_part_of_it(lane, tmp_path):
    sent = itertools.count()

    def slowly(handler):
        """A gzip stream of 256 MiB at no more than 100 MiB a second."""
        handler.send_response(200)
        handler.end_headers()
        packer = zlib.compressobj(0, wbits=31)
        for _ in range(COPY_BYTES // len(PIECE)):
            handler.wfile.write(packer.compress(PIECE))
            next(sent)
            handler.server.pace.wait(0.01)
        handler.wfile.write(packer.flush())

    store = tmp_path / "images"
    with ObjectServer() as server, lane():
        server._server.pace = server.release
        operation = begin(
            volume(), {"act": "copy", "url": server.on("/disk.gz", slowly), "store": str(store), "idle_timeout_s": 60}
        )

        def copied_bytes():
            return Step.objects.get(operation=operation).progress_done or 0

        wait_for(lambda: copied_bytes() > 10 * MIB, "the copy to be on its way")
        assert list(store.glob("*.part"))
        cancel(operation)
        wait_for(lambda: is_done(operation), "the end")
        assert operation.state == "cancelled"
        assert list(store.glob("*.part")) == list(store.glob("*.raw")) == []
        assert next(sent) * len(PIECE) < COPY_BYTES, "it had not come to its end"
    assert [past["outcome"] for past in steps_of(operation)[0].attempts] == ["cancelled"]
