"""Cancel ends an operation in a true state: undone, or in error with what is held, and never as something it is not."""

from __future__ import annotations

import pytest

from core.errors import Permanent
from operations import engine, keeper, protocol, register, timing
from operations.models import Event, OperationSubject
from operations.states import Hold
from tests.operations import parts
from tests.operations.parts import GROW, REMOVE, act, begin, steps_of, volume


def state_of(row):
    row.refresh_from_db()
    return row.state


@pytest.fixture
def cancel_me(quick):
    """An act whose operation is cancelled while it runs."""

    @act("cancel me")
    def cancel_me(run):
        engine.cancel(run.operation, reason="somebody thought better of it")
        run.pause(30)


@pytest.fixture
def stuck():
    """Undoing this act fails."""

    def unmake(run):
        raise Permanent("the disk will not go")

    parts.undos["stuck"] = unmake
    act("stuck")(lambda run: {"made": "something"})


def test_a_cancelled_operation_that_could_not_be_undone_ends_in_error_with_what_is_held(bells, cancel_me, stuck):
    subject = volume()
    operation = begin(subject, {"act": "stuck", "task": "part"}, {"act": "cancel me"})
    bells.answer()
    assert state_of(operation) == "cancelled"
    assert state_of(subject) == "error", "it would have been deleted, had the undo gone well"
    assert operation.held == ["tests.part could not be undone: the disk will not go"]
    assert subject.error["operation"] == operation.uid
    assert "somebody thought better of it" in subject.error["message"]
    assert "the disk will not go" in subject.error["message"]


def test_a_failed_operation_that_could_not_be_undone_is_not_taken_for_what_it_was(bells, stuck):
    subject = volume("available")
    verb = register.Verb("volume", "tidy", frozenset({"available"}), "available", parts._plan, failed_to="available")
    register.nouns["volume"].verbs["tidy"] = verb
    begin(subject, {"act": "refuse"}, verb=verb)
    bells.answer()
    assert state_of(subject) == "available"
    begin(subject, {"act": "stuck", "task": "part"}, {"act": "refuse"}, verb=verb)
    bells.answer()
    assert state_of(subject) == "error"
    assert subject.error["message"] == "the disk is made of cheese"


def test_what_is_whole_stays_below_what_could_not_be_undone(bells, cancel_me, stuck):
    """The guest may still run on that disk."""
    operation = begin(
        volume(),
        {"act": "nothing", "task": "whole"},
        {"act": "nothing", "task": "part"},
        {"act": "stuck", "task": "part"},
        {"act": "cancel me", "task": "plain"},
    )
    bells.answer()
    assert [step.state for step in steps_of(operation)] == ["done", "undone", "failed", "cancelled"]
    assert state_of(operation) == "cancelled"
    assert "tests.whole was left as it is" in operation.held[1]


def test_cancelling_twice_changes_nothing(bells, quick):
    @act("cancel me")
    def cancel_me(run):
        assert engine.cancel(run.operation, reason="once")
        assert engine.cancel(run.operation, reason="twice")
        run.pause(30)

    operation = begin(volume(), {"act": "cancel me"})
    bells.answer()
    assert (state_of(operation), operation.cancel_reason) == ("cancelled", "once")
    assert Event.objects.filter(operation_uid=operation.uid, name="volume.build.cancel").count() == 1


def test_a_cancel_that_comes_when_all_is_done_and_cannot_be_undone_is_too_late(bells):
    act("too late")(lambda run: engine.cancel(run.operation, reason="too late") and None)
    subject = volume()
    operation = begin(subject, {"act": "nothing"}, {"act": "too late"})
    bells.answer()
    assert (state_of(operation), state_of(subject), subject.error) == ("done", "available", None)


def test_a_cancel_with_work_left_is_not_too_late(bells):
    act("half")(lambda run: engine.cancel(run.operation, reason="enough") and None)
    subject = volume("available")
    operation = begin(subject, {"act": "half"}, {"act": "refuse"}, verb=REMOVE)
    bells.answer()
    assert (state_of(operation), state_of(subject)) == ("cancelled", "error")
    assert "remove was cancelled: enough" in subject.error["message"]
    assert subject.error["operation"] == operation.uid


def test_cancel_of_one_that_waits_leaves_its_subject_to_the_one_before(bells, quick):
    """That one was asked to stop already; it ends now as if nobody took over, and undoes what it made."""
    begun = []

    @act("long")
    def long(run):
        begun.append(begin(subject, verb=REMOVE))
        assert begun[0].state == "waiting"
        assert engine.cancel(begun[0], reason="not after all")
        begun[0].refresh_from_db()
        assert (begun[0].state, state_of(subject)) == ("cancelled", "creating")
        run.pause(30)

    subject = volume()
    first = begin(subject, {"act": "nothing", "task": "whole"}, {"act": "long", "moves": "creating"})
    bells.answer()
    assert (state_of(first), state_of(subject)) == ("cancelled", "deleted")
    assert first.undone == ["nothing was unmade"]
    assert not OperationSubject.objects.exclude(hold=Hold.CLOSED).exists()
    with pytest.raises(engine.Conflict) as refused:
        begin(subject, verb=GROW)
    assert refused.value.code == "wrong_state"


def test_cancel_of_one_that_waits_and_the_end_of_the_one_before_meet_without_a_deadlock(bells, quick, in_threads):
    for _ in range(5):
        subject = volume()
        begun = []

        @act("long")
        def long(run, subject=subject, begun=begun):
            begun.append(begin(subject, verb=REMOVE))

        first = begin(subject, {"act": "long", "task": "part"})
        bell = bells.pop(0)
        [worker] = in_threads(lambda bell=bell: protocol.run_step(*bell))
        while not begun:
            assert not worker.done()
        [canceller] = in_threads(lambda begun=begun: engine.cancel(begun[0], reason="not after all"))
        worker.result(30)
        canceller.result(30)
        bells.answer()
        assert state_of(first) == "cancelled"
        assert state_of(begun[0]) == "cancelled"
        assert state_of(subject) in ("deleted", "error")
        assert not OperationSubject.objects.exclude(hold=Hold.CLOSED).exists()


def test_work_hears_of_a_cancel_between_two_renewals_of_its_lease(bells, monkeypatch):
    monkeypatch.setattr(keeper, "_renew", lambda runs: None)
    monkeypatch.setattr(timing, "KEEPER_TICK_S", 1)
    monkeypatch.setattr(timing, "HEAR_EVERY_S", 0.05)

    @act("long")
    def long(run):
        engine.cancel(run.operation, reason="by the tests")
        run.pause(60)

    operation = begin(volume(), {"act": "long"})
    bells.answer()
    assert [past["outcome"] for past in steps_of(operation)[0].attempts] == ["cancelled"]
