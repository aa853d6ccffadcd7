"""Real Celery workers on the tests' Redis and PostgreSQL: killed, asked to go, rung twice, and made deaf."""

from __future__ import annotations

import json
import signal

import pytest
import structlog
from celery import current_app

from operations import canary, register
from operations.bell import queue_lengths, queue_name, ring
from operations.lane import DEAF_LOOKS, THREADS
from operations.models import Event, LaneCanary, Step
from tests.operations.parts import NODE, begin, steps_of, volume
from tests.operations.real_lanes import PATIENCE_S, is_done, wait_for


@pytest.fixture
def waiting_step(lane, tmp_path):
    """A step that has begun in a worker and goes on when `go()` is called: (operation, go, journal)."""
    journal, until = tmp_path / "journal", tmp_path / "go"
    operation = begin(
        volume(), {"act": "wait", "journal": str(journal), "until": str(until), "task": "part"}, {"act": "nothing"}
    )
    return operation, until.touch, lambda: journal.read_text().split("\n")[:-1] if journal.exists() else []


def outcomes(operation):
    return [past["outcome"] for past in steps_of(operation)[0].attempts]


def test_the_step_of_a_killed_worker_is_taken_by_another_when_its_lease_is_over(lane, waiting_step, sweeping):
    operation, go, journal = waiting_step
    with lane() as other, lane() as first:
        wait_for(journal, "the step to begin")
        [worker] = Step.objects.filter(operation=operation, state="running").values_list("worker", flat=True)
        [victim] = [process for process in (first, other) if f":{process.pid}/" in worker]
        victim.kill()
        wait_for(lambda: "began 2" in journal(), "the second attempt")
        go()
        wait_for(lambda: is_done(operation), "the end")
    assert (operation.state, outcomes(operation)) == ("done", ["lost", "done"])
    assert journal() == ["began 1", "began 2", "did 2"]
    assert "no sign of life" in steps_of(operation)[0].attempts[0]["error"]


def test_a_lane_that_starts_takes_over_what_was_running_there_at_once(lane, waiting_step):
    operation, go, journal = waiting_step
    with lane() as first:
        wait_for(journal, "the step to begin")
        first.kill()
    go()
    with lane("take-over"):
        wait_for(lambda: is_done(operation), "the end")
    assert (operation.state, outcomes(operation)) == ("done", ["lost", "done"])
    assert journal() == ["began 1", "began 2", "did 2"]
    assert "ended before the step did" in steps_of(operation)[0].attempts[0]["error"]


def test_a_worker_that_is_asked_to_go_hands_its_step_back(lane, waiting_step):
    operation, go, journal = waiting_step
    with lane() as first:
        wait_for(journal, "the step to begin")
        first.send_signal(signal.SIGTERM)
        assert first.wait(PATIENCE_S) == 0
    [step, _] = steps_of(operation)
    assert (step.state, step.attempt, step.worker, step.losses) == ("queued", 2, "", 0)
    assert outcomes(operation) == ["stopped"]
    go()
    with lane("take-over"):  # the bell of the step handed back may have been swallowed by the worker that went
        wait_for(lambda: is_done(operation), "the end")
    assert journal() == ["began 1", "began 2", "did 2"]
    assert not Event.objects.filter(operation_uid=operation.uid, name__contains="lost").exists()


def test_bells_that_are_rung_many_times_do_the_work_once(lane, waiting_step):
    operation, go, journal = waiting_step
    step = steps_of(operation)[0]
    for _ in range(8):
        ring(step.pk, step.attempt, step.task, step.node, step.lane)
    with lane(), lane():
        wait_for(journal, "the step to begin")
        go()
        wait_for(lambda: is_done(operation), "the end")
    assert journal() == ["began 1", "did 1"]
    assert outcomes(operation) == ["done"]


def test_every_line_of_a_lane_is_json_and_names_who_speaks_for_whom(lane, tmp_path):
    with structlog.contextvars.bound_contextvars(request_id="req-of-test"), lane() as process:
        operation = begin(volume(), {"act": "say", "words": "all is well"})
        wait_for(lambda: is_done(operation), "the step to end")
        process.terminate()
        process.wait(PATIENCE_S)
    lines = [json.loads(line) for line in (tmp_path / "worker.log").read_text().splitlines()]
    assert all((line["lane"], line["node"], line["process"]) == ("ops", NODE, "worker") for line in lines)
    said = {line["event"]: line for line in lines}
    for event in ("all is well", "step done"):
        assert said[event]["operation"] == operation.uid
        assert said[event]["step"] == "tests.plain"
        assert said[event]["subject"] == operation.subject_uid
        assert said[event]["request_id"] == "req-of-test"
    assert "ZeroDivisionError" in said["a thread ended by an error"]["exception"]
    assert any("a library is unhappy" in event for event in said)
    assert "superuser" not in str(lines)
    assert [line.split(" ", 3)[3] for line in steps_of(operation)[0].log.splitlines()][-1] == "info all is well"


def looked_at_queues():
    """How often anybody has asked Redis for the length of a queue."""
    with current_app.connection_for_read() as line, line.channel() as channel:
        return channel.client.info("commandstats").get("cmdstat_llen", {}).get("calls", 0)


def waiting_bells():
    return queue_lengths([(NODE, "ops")])[NODE, "ops"]


@pytest.fixture
def empty_queue():
    yield
    with current_app.connection_for_write() as line, line.channel() as channel:
        channel.client.delete(queue_name(NODE, "ops"))


def test_a_worker_that_became_deaf_leaves_and_the_next_one_hears(lane, waiting_step, empty_queue, tmp_path):
    operation, go, _ = waiting_step
    go()
    with lane() as deaf:
        wait_for(lambda: is_done(operation), "the worker to hear")
        current_app.control.cancel_consumer(queue_name(NODE, "ops"), reply=True, timeout=PATIENCE_S, limit=1)
        unheard = begin(volume(), {"act": "nothing"})
        assert deaf.wait(PATIENCE_S) in (0, 75)
        assert "bells wait, slots are free, and none is heard" in (tmp_path / "worker.log").read_text()
    assert not is_done(unheard)
    with lane():
        wait_for(lambda: is_done(unheard), "the next worker to hear")


def test_a_canary_alone_shows_that_an_idle_worker_is_deaf(lane, waiting_step, empty_queue, monkeypatch):
    operation, go, _ = waiting_step
    go()
    monkeypatch.setattr(register, "lanes", [lambda: [(NODE, "ops")]])
    with lane() as deaf:
        wait_for(lambda: is_done(operation), "the worker to hear")
        canary.send(1000)
        ours = LaneCanary.objects.filter(node=NODE)
        wait_for(lambda: ours.filter(waits_since=None).exists(), "the canary to come back")
        assert 0 < ours.get().round_trip.total_seconds() < PATIENCE_S
        current_app.control.cancel_consumer(queue_name(NODE, "ops"), reply=True, timeout=PATIENCE_S, limit=1)
        canary.send(1000)
        assert deaf.wait(PATIENCE_S) in (0, 75)
    with lane():
        wait_for(lambda: ours.filter(waits_since=None, number=2).exists(), "the next worker to answer it")


def test_a_full_worker_is_not_taken_for_a_deaf_one(lane, tmp_path, empty_queue):
    go, journal = tmp_path / "go", tmp_path / "journal"
    works = [
        begin(volume(), {"act": "wait", "until": str(go), "journal": str(journal)})
        for _ in range(2 * THREADS["ops"] + 2)
    ]
    with lane() as full:
        wait_for(lambda: Step.objects.exclude(worker="").count() == THREADS["ops"], "all slots to be taken")
        wait_for(waiting_bells, "a bell that waits")
        looks = looked_at_queues()
        wait_for(lambda: looked_at_queues() >= looks + 2 * DEAF_LOOKS, "the watch to look often enough")
        assert full.poll() is None
        assert waiting_bells() > 0
        go.touch()
        for work in works:
            wait_for(lambda work=work: is_done(work), "all that waits")
