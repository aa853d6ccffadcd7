"""A cancel ends also where the node never answers: what could not be undone is held, and nothing is concluded."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from operations import engine, giving_up, protocol, register, timing
from operations.answering import Answering
from operations.giving_up import LANE_IS_DEAD_AFTER_S, give_up
from operations.models import Event, OperationSubject, Step
from operations.recovery import lose
from operations.states import Hold
from tests.operations.parts import GROW, NODE, REMOVE, act, begin, steps_of, volume
from volumes.models import Volume

LONG_ENOUGH_S = timing.LEASE_S + 1
SILENT = f"node {NODE}, silent since 2026-01-02 03:04:05 UTC"


@pytest.fixture
def silence(monkeypatch):
    """`silence.add(NODE)`: it does not answer any more."""
    silent = set()
    monkeypatch.setattr(register, "node_troubles", [lambda asked: dict.fromkeys(asked & silent, SILENT)])
    return silent


@pytest.fixture(autouse=True)
def redis(monkeypatch):
    """`redis.heard`: whether it answers now, `redis.passed_s`: for how long it has."""

    class Redis(Answering):
        heard, passed_s = True, LANE_IS_DEAD_AFTER_S

        def interrupted(self):
            self.passed_s = 0

        def for_s(self):
            return self.passed_s

    redis = Redis()
    monkeypatch.setattr(giving_up, "_redis", redis)
    monkeypatch.setattr(giving_up, "is_heard", lambda: redis.heard)
    return redis


def state_of(row):
    row.refresh_from_db()
    return row.state


@pytest.fixture
def half_done(bells):
    """Two steps are done, the third waits in the queue of the same node: (subject, operation)."""
    subject = volume()
    operation = begin(
        subject,
        {"act": "nothing", "task": "whole", "moves": "pending"},
        {"act": "nothing", "task": "part", "moves": "creating"},
        {"act": "nothing", "lane": "bulk"},
    )
    protocol.run_step(*bells.pop(0))
    bells.clear()
    assert [step.state for step in steps_of(operation)] == ["done", "done", "queued"]
    return subject, operation


def test_what_a_silent_node_cannot_undo_is_held_and_the_subject_is_free(half_done, silence, bells):
    subject, operation = half_done
    silence.add(NODE)
    engine.cancel(operation, reason="by the tests")
    give_up(LONG_ENOUGH_S)
    assert (state_of(operation), state_of(subject)) == ("cancelled", "error")
    assert operation.held == [
        f"tests.part was not undone: {SILENT}",
        "tests.whole was left as it is, for what came after it could not be undone",
    ]
    assert SILENT in subject.error["message"]
    assert [step.state for step in steps_of(operation)] == ["done", "failed", "cancelled"]
    assert not OperationSubject.objects.exclude(hold=Hold.CLOSED).exists()
    bells.clear()
    begin(subject, verb=REMOVE)
    bells.answer()
    assert state_of(subject) == "deleted"


def test_one_that_cannot_be_given_up_holds_up_no_other(half_done, silence, monkeypatch):
    _, operation = half_done
    operations = [operation, *(begin(volume(), {"act": "nothing", "task": "part"}) for _ in range(2))]
    Step.objects.filter(operation__in=operations[1:]).update(claimed_at=Now())
    for one in operations:
        engine.cancel(one, reason="by the tests")
    silence.add(NODE)
    broken, advance = operations[1], engine.advance

    def stumble(operation, **rest):
        if operation.pk == broken.pk:
            raise ValueError("nobody thought of this")
        return advance(operation, **rest)

    monkeypatch.setattr(engine, "advance", stumble)
    give_up(LONG_ENOUGH_S)
    assert [state_of(one) == "cancelled" for one in operations] == [True, False, True]


def test_a_node_that_answers_undoes_however_long_it_takes(half_done, silence, bells):
    subject, operation = half_done
    engine.cancel(operation, reason="by the tests")
    give_up(LONG_ENOUGH_S)
    bells.answer()
    assert (state_of(operation), state_of(subject), operation.held) == ("cancelled", "deleted", [])


def test_nothing_is_given_up_before_the_node_could_have_been_heard(half_done, silence):
    _, operation = half_done
    silence.add(NODE)
    engine.cancel(operation, reason="by the tests")
    give_up(timing.LEASE_S - 1)
    operation.refresh_from_db()
    assert operation.ended_at is None


def test_nothing_is_given_up_that_nobody_asked_to_cancel(half_done, silence, bells):
    """It waits for the node, and goes on when that is back."""
    _, operation = half_done
    silence.add(NODE)
    give_up(LONG_ENOUGH_S)
    assert [step.state for step in steps_of(operation)] == ["done", "done", "queued"]


def test_a_worker_that_was_thought_lost_writes_nothing_when_it_comes_back(bells, silence, quick, in_threads):
    began, go_on, subject = threading.Event(), threading.Event(), volume()

    @act("unheard")
    def unheard(run):
        began.set()
        assert go_on.wait(30)

    operation = begin(subject, {"act": "unheard", "task": "part"})
    [worker] = in_threads(lambda: protocol.run_step(*bells.pop(0)))
    assert began.wait(20)
    silence.add(NODE)
    engine.cancel(operation, reason="by the tests")
    give_up(LONG_ENOUGH_S)
    operation.refresh_from_db()
    assert operation.ended_at is None, "it may hear of the cancel yet"
    lose(Step.objects.get(operation=operation), "the test says so")
    give_up(LONG_ENOUGH_S)
    assert (state_of(operation), state_of(subject)) == ("cancelled", "error")
    before = Step.objects.values().get(operation=operation)
    go_on.set()
    worker.result(30)
    bells.answer()
    assert Step.objects.values().get(operation=operation) == before
    assert (state_of(operation), state_of(subject)) == ("cancelled", "error")


def test_what_a_worker_undid_while_it_was_judged_is_not_ended_twice(half_done, silence, bells, monkeypatch):
    """The node comes back between the look at what waits and the lock of the operation."""
    subject, operation = half_done
    engine.cancel(operation, reason="by the tests")

    def comes_back(asked):
        bells.answer()
        Volume.objects.filter(pk=subject.pk).update(state="available")
        begin(subject, {"act": "nothing", "moves": "resizing"}, verb=GROW)
        return dict.fromkeys(asked, SILENT)

    monkeypatch.setattr(register, "node_troubles", [comes_back])
    give_up(LONG_ENOUGH_S)
    assert (state_of(operation), operation.held) == ("cancelled", [])
    assert state_of(subject) == "resizing", "it belongs to the next operation by now"
    assert Event.objects.filter(operation_uid=operation.uid, name="volume.build.cancelled").count() == 1


def queued_ago(operation, seconds):
    Step.objects.filter(operation=operation, state="undoing").update(queued_at=Now() - timedelta(seconds=seconds))


def test_a_lane_in_which_nobody_works_holds_up_no_cancel(half_done, silence):
    """The node is online, but the process of its lane does not come back."""
    subject, operation = half_done
    engine.cancel(operation, reason="by the tests")
    give_up(LONG_ENOUGH_S)
    operation.refresh_from_db()
    assert operation.ended_at is None, "it may be at something else for a while"
    queued_ago(operation, LANE_IS_DEAD_AFTER_S + 1)
    give_up(LONG_ENOUGH_S)
    assert (state_of(operation), state_of(subject)) == ("cancelled", "error")
    assert f"nobody has worked in the lane ops of node {NODE} since" in operation.held[0]


def test_a_lane_that_could_hear_no_bell_is_not_dead(half_done, silence, redis):
    """While Redis is away nobody works, and for a moment after that the bells are still to be rung."""
    _, operation = half_done
    engine.cancel(operation, reason="by the tests")
    queued_ago(operation, LANE_IS_DEAD_AFTER_S + 1)
    for redis.heard in (False, True):
        give_up(LONG_ENOUGH_S)
        operation.refresh_from_db()
        assert operation.ended_at is None
    redis.passed_s = LANE_IS_DEAD_AFTER_S
    give_up(LONG_ENOUGH_S)
    assert state_of(operation) == "cancelled"


def test_a_lane_that_is_full_of_other_work_is_waited_for(half_done, silence, bells):
    _, operation = half_done
    other = begin(volume(), {"act": "nothing"})
    Step.objects.filter(operation=other).update(
        state="running", worker="busy", lease_until=Now() + timedelta(seconds=30)
    )
    engine.cancel(operation, reason="by the tests")
    queued_ago(operation, LANE_IS_DEAD_AFTER_S + 1)
    give_up(LONG_ENOUGH_S)
    operation.refresh_from_db()
    assert operation.ended_at is None
