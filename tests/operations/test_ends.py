"""How operations end: done, failed after tries, cancelled; what is undone, what is held, and what the story says."""

from __future__ import annotations

import pytest
from django.db import IntegrityError

from core.errors import Permanent, Transient
from operations import engine
from operations.models import Event, OperationSubject
from operations.states import Hold
from tests.operations import parts
from tests.operations.parts import act, begin, steps_of, volume
from volumes.models import Volume


def ended(operation):
    operation.refresh_from_db()
    assert operation.ended_at is not None, operation.state
    assert not OperationSubject.objects.filter(operation=operation).exclude(hold=Hold.CLOSED).exists()
    return operation


def states(operation):
    return [step.state for step in steps_of(operation)]


def test_steps_run_in_order_and_move_their_subject(bells):
    subject, seen = volume(), []
    act("look")(lambda run: seen.append((run.step.position, Volume.objects.get(pk=subject.pk).state)))
    operation = begin(
        subject,
        {"act": "look", "moves": "pending"},
        {"act": "look", "moves": "creating", "lane": "bulk"},
        {"act": "look"},
    )
    bells.answer()
    assert seen == [(1, "pending"), (2, "creating"), (3, "creating")]
    subject.refresh_from_db()
    assert (ended(operation).state, subject.state, subject.error) == ("done", "available", None)
    names = list(Event.objects.filter(operation_uid=operation.uid).order_by("id").values_list("name", flat=True))
    assert names == ["volume.build.requested", "volume.build.done"]


def test_a_transient_fault_is_tried_again_with_growing_pauses_until_the_budget_is_spent(bells, pauses_are_over):
    @act("flaky")
    def flaky(run):
        raise Transient("the line is bad", advice="Look at the cable.")

    operation = begin(volume(), {"act": "flaky", "retries": 3})
    pauses_s = []
    for _ in range(3):
        bells.answer()
        [step] = steps_of(operation)
        assert step.state == "queued"
        pauses_s.append((step.not_before - step.queued_at).total_seconds())
        bells += pauses_are_over()
    bells.answer()
    assert 1 <= pauses_s[0] <= 2 <= pauses_s[1] <= 4 <= pauses_s[2] <= 8
    [step] = steps_of(operation)
    assert [past["outcome"] for past in step.attempts] == ["retried", "retried", "retried", "failed"]
    assert (step.state, step.error["class"], step.error["advice"]) == ("failed", "Transient", "Look at the cable.")
    assert ended(operation).state == "failed"


def test_a_fault_that_passes_is_no_failure(bells, pauses_are_over):
    @act("flaky")
    def flaky(run):
        if run.step.attempt < 3:
            raise Transient("the line is bad")
        return {"made": True}

    operation = begin(volume(), {"act": "flaky"})
    for _ in range(3):
        bells.answer()
        bells += pauses_are_over()
    [step] = steps_of(operation)
    assert (ended(operation).state, step.error, step.result) == ("done", None, {"made": True})


def test_a_permanent_fault_fails_at_once_and_undoes_only_what_is_not_whole(bells):
    subject = volume()
    for name in ("first", "second", "third"):
        act(name)(lambda run: {"made": run.params["act"]})
    operation = begin(
        subject,
        {"act": "first", "task": "part"},
        {"act": "second", "task": "whole"},
        {"act": "third", "task": "plain"},
        {"act": "refuse", "task": "part"},
        {"act": "nothing"},
    )
    bells.answer()
    assert states(operation) == ["undone", "done", "done", "undone", "cancelled"]
    assert ended(operation).state == "failed"
    assert operation.undone == ["refuse was unmade", "first was unmade"]
    subject.refresh_from_db()
    assert (subject.state, subject.error["operation"]) == ("error", operation.uid)
    assert steps_of(operation)[1].result == {"made": "second"}


def test_a_failed_operation_explains_itself(bells):
    operation = begin(volume(), {"act": "refuse", "task": "part"})
    bells.answer()
    error = ended(operation).error
    assert error["class"] == "Permanent"
    assert error["message"] == "the disk is made of cheese"
    assert error["advice"] == "Buy another one."
    assert error["step"] == "tests.part"
    assert error["place"].startswith("tests/operations/parts.py:")
    assert error["place"].endswith(" in refuse")
    [step] = steps_of(operation)
    assert step.error == error, "the step keeps its error though it was undone since"
    assert [(past["number"], past["outcome"]) for past in step.attempts] == [(1, "failed"), (2, "undone")]
    assert all(past["worker"] and past["started_at"] <= past["ended_at"] for past in step.attempts)
    last = Event.objects.filter(operation_uid=operation.uid).first()
    assert "the disk is made of cheese" in last.message


def test_a_bug_in_a_step_fails_the_operation_with_class_and_place(bells):
    operation = begin(volume(), {"act": "stumble"})
    bells.answer()
    error = ended(operation).error
    assert error["message"] == "ValueError: nobody thought of this"
    assert error["place"].startswith("tests/operations/parts.py:")
    assert error["place"].endswith(" in stumble")
    assert "defect" in error["advice"]


@pytest.mark.parametrize("fault", [ValueError("not so"), IntegrityError("twice"), Permanent("no")])
def test_a_bug_in_the_rows_of_a_settlement_fails_the_step_at_once(bells, fault):
    def settle(run, result):
        Volume.objects.filter(uid=run.subject_uid).update(size_bytes=1)
        raise fault

    parts.settled["nothing"] = settle
    subject = volume()
    operation = begin(subject, {"act": "nothing", "task": "part"})
    bells.answer()
    assert ended(operation).state == "failed"
    assert str(fault) in operation.error["message"]
    assert operation.error["place"].endswith(" in settle")
    assert steps_of(operation)[0].losses == 0
    subject.refresh_from_db()
    assert subject.size_bytes == 2**20, "nothing of that transaction stays"


def test_cancel_before_the_first_step_begins_leaves_nothing_to_undo(bells):
    subject = volume()
    operation = begin(subject, {"act": "refuse", "task": "whole"})
    engine.cancel(operation, reason="somebody thought better of it")
    bells.answer()
    subject.refresh_from_db()
    assert (ended(operation).state, subject.state, states(operation)) == ("cancelled", "deleted", ["cancelled"])
    assert operation.undone == []


def test_cancel_undoes_everything_newest_first(bells, quick):
    @act("cancel me")
    def cancel_me(run):
        engine.cancel(run.operation, reason="somebody thought better of it")
        run.pause(30)

    operation = begin(
        volume(),
        {"act": "nothing", "task": "whole"},
        {"act": "nothing", "task": "plain"},
        {"act": "cancel me", "task": "part"},
        {"act": "refuse"},
    )
    bells.answer()
    assert states(operation) == ["undone", "done", "undone", "cancelled"]
    assert ended(operation).state == "cancelled"
    assert operation.undone == ["cancel me was unmade", "nothing was unmade"]
    assert operation.error is None


def test_cancel_of_a_step_that_finishes_all_the_same_undoes_it(bells):
    @act("too late")
    def too_late(run):
        engine.cancel(run.operation, reason="too late to stop")

    operation = begin(volume(), {"act": "too late", "task": "whole"})
    bells.answer()
    assert (ended(operation).state, states(operation)) == ("cancelled", ["undone"])


def test_cancel_of_a_step_that_is_about_to_be_tried_again_does_not_wait_for_its_pause(bells):
    @act("flaky")
    def flaky(run):
        raise Transient("the line is bad")

    operation = begin(volume(), {"act": "flaky", "task": "part"})
    bells.answer()
    assert states(operation) == ["queued"]
    engine.cancel(operation, reason="enough")
    bells.answer()
    assert (ended(operation).state, states(operation)) == ("cancelled", ["undone"])


def test_cancel_that_meets_a_transient_fault_ends_the_operation_at_once(bells):
    @act("flaky")
    def flaky(run):
        engine.cancel(run.operation, reason="enough")
        raise Transient("the line is bad")

    operation = begin(volume(), {"act": "flaky", "task": "part"})
    bells.answer()
    assert (ended(operation).state, states(operation)) == ("cancelled", ["undone"])


def test_cancel_while_undo_runs_changes_nothing(bells):
    def unmake(run):
        engine.cancel(run.operation, reason="too late")
        return "gone"

    parts.undos["refuse"] = unmake
    operation = begin(volume(), {"act": "refuse", "task": "part"})
    bells.answer()
    assert (ended(operation).state, states(operation), operation.undone) == ("failed", ["undone"], ["gone"])


def test_cancel_of_an_ended_operation_changes_nothing(bells):
    operation = begin(volume())
    bells.answer()
    engine.cancel(operation, reason="too late")
    assert (ended(operation).state, operation.cancel_reason) == ("done", "")


def test_an_undo_that_fails_is_told_in_held_and_the_rest_is_undone(bells):
    def unmake(run):
        raise Permanent("the disk will not go")

    parts.undos["sticky"] = unmake
    act("sticky")(lambda run: {"made": "something"})
    operation = begin(
        volume(), {"act": "nothing", "task": "part"}, {"act": "sticky", "task": "part"}, {"act": "refuse"}
    )
    bells.answer()
    assert states(operation) == ["undone", "failed", "failed"]
    assert ended(operation).held == ["tests.part could not be undone: the disk will not go"]
    assert operation.error["message"] == "the disk is made of cheese"
    assert steps_of(operation)[1].result == {"made": "something"}, "it is there still"


def test_an_undo_has_tries_of_its_own(bells, pauses_are_over):
    def unmake(run):
        if run.step.attempt < 4:
            raise Transient("not now")
        return "gone at last"

    parts.undos["refuse"] = unmake
    operation = begin(volume(), {"act": "refuse", "task": "part", "retries": 0})
    for _ in range(3):
        bells.answer()
        bells += pauses_are_over()
    assert (ended(operation).undone, operation.held) == (["gone at last"], [])


def test_a_bug_in_an_undo_is_told_in_held(bells):
    parts.undos["refuse"] = lambda run: 1 / 0
    operation = begin(volume(), {"act": "refuse", "task": "part"})
    bells.answer()
    assert ended(operation).held == ["tests.part could not be undone: ZeroDivisionError: division by zero"]


def test_subjects_beside_the_main_one_end_in_error_with_the_same_reason(bells):
    subject, other = volume(), volume("creating")
    operation = begin(subject, {"act": "refuse"}, also=[other.uid])
    bells.answer()
    other.refresh_from_db()
    assert (ended(operation).state, other.state) == ("failed", "error")
    assert other.error["message"] == "the disk is made of cheese"


def test_an_operation_whose_subject_was_deleted_ends_all_the_same(bells):
    subject = volume()
    operation = begin(subject)
    Volume.objects.filter(pk=subject.pk).delete()
    bells.answer()
    assert ended(operation).state == "done"


def test_a_step_without_progress_is_stopped_and_one_with_progress_is_not(bells, quick):
    @act("copy")
    def copy(run):
        for done in range(20):
            run.progress(done, 20, "bytes")
            run.pause(0.03)

    @act("stall")
    def stall(run):
        run.pause(30)

    moving = begin(volume(), {"act": "copy", "idle_timeout_s": 15})  # 0.3 s here; the copy takes 0.6 s
    stalled = begin(volume(), {"act": "stall", "idle_timeout_s": 15, "retries": 0})
    bells.answer()
    assert ended(moving).state == "done"
    assert ended(stalled).error["message"] == "tests.plain made no progress for 0.3 s"


def test_a_deadline_ends_a_step_that_moves_but_never_ends(bells, quick):
    @act("turn")
    def turn(run):
        for done in range(10**6):
            run.progress(done, None, "steps")
            run.pause(0.01)

    operation = begin(volume(), {"act": "turn", "task": "part", "deadline_s": 10, "retries": 0})
    bells.answer()
    assert "longer than its deadline of 0.2 s" in ended(operation).error["message"]
    assert states(operation) == ["undone"], "the undo that follows has a deadline of its own"
