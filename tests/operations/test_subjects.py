"""The lock is a row: one operation at a time on a subject, and one that may wait to supersede it."""

from __future__ import annotations

import threading

import pytest

from core.errors import Conflict, Permanent
from operations import engine, protocol
from operations.models import Event, Operation, OperationSubject, Step
from operations.run import StepRun
from operations.states import Hold
from tests.operations import parts
from tests.operations.parts import BUILD, GROW, REMOVE, act, begin, steps_of, volume
from volumes.models import Volume


def state_of(row):
    row.refresh_from_db()
    return row.state


def test_a_busy_subject_refuses_with_the_operation_named(bells):
    subject = volume()
    operation = begin(subject)
    with pytest.raises(Conflict) as refused:
        begin(subject, verb=GROW)
    assert refused.value.code == "busy"
    assert refused.value.extra["operation"] == operation.uid
    assert operation.uid in refused.value.detail
    assert refused.value.extra["allowed_verbs"] == ["remove"], "what could supersede it"
    assert Operation.objects.count() == 1, "nothing is left of the refused one"


def test_a_verb_in_the_wrong_state_is_refused_with_the_verbs_allowed_now(bells):
    subject = volume("available")
    with pytest.raises(Conflict) as refused:
        begin(subject, verb=BUILD)
    assert (refused.value.code, refused.value.extra["state"]) == ("wrong_state", "available")
    assert refused.value.extra["allowed_verbs"] == ["grow", "remove"]
    assert not Operation.objects.exists()
    assert not OperationSubject.objects.exists()


def test_a_subject_beside_the_main_one_is_locked_too(bells):
    subject, other = volume(), volume()
    operation = begin(subject, also=[other.uid])
    with pytest.raises(Conflict) as refused:
        begin(other)
    assert refused.value.extra["operation"] == operation.uid
    with pytest.raises(Conflict):
        begin(volume(), also=[other.uid])
    bells.answer()
    begin(other)


def test_of_many_that_begin_at_once_one_wins(bells, in_threads):
    subject = volume("available")
    start = threading.Barrier(8)

    def try_it():
        start.wait(10)
        try:
            return begin(subject, verb=GROW).uid
        except Conflict as refused:
            assert refused.code == "busy"
            return None

    outcomes = [future.result(30) for future in in_threads(*[try_it] * 8)]
    assert len([uid for uid in outcomes if uid]) == 1
    assert Operation.objects.count() == 1


def test_superseding_a_queued_operation_begins_at_once(bells):
    subject = volume()
    first = begin(subject, {"act": "refuse", "task": "whole"})
    second = begin(subject, verb=REMOVE)
    first.refresh_from_db()
    assert (first.state, first.superseded_by, second.state) == ("cancelled", second.uid, "queued")
    bells.answer()
    assert state_of(subject) == "deleted"
    assert steps_of(first)[0].state == "cancelled"


def test_superseding_a_running_step_waits_for_its_safe_point_and_undoes_nothing(bells, quick, in_threads):
    subject, began = volume(), threading.Event()

    @act("long")
    def long(run):
        began.set()
        run.pause(30)

    first = begin(subject, {"act": "nothing", "task": "whole"}, {"act": "long", "task": "part"})
    [worker] = in_threads(lambda: protocol.run_step(*bells.pop(0)))
    assert began.wait(20)
    second = begin(subject, verb=REMOVE)
    assert second.state == "waiting"
    with pytest.raises(Conflict) as refused:
        begin(subject, verb=GROW)
    assert refused.value.code == "busy"
    worker.result(30)
    first.refresh_from_db()
    assert (first.state, first.undone) == ("cancelled", []), "its successor takes over what is there"
    assert [step.state for step in steps_of(first)] == ["done", "cancelled"]
    bells.answer()
    assert state_of(second) == "done"
    assert state_of(subject) == "deleted"


def test_superseding_between_two_steps(bells):
    subject = volume()
    first = begin(subject, {"act": "nothing"}, {"act": "refuse", "lane": "bulk"})
    protocol.run_step(*bells.pop(0))
    assert [step.state for step in steps_of(first)] == ["done", "queued"]
    second = begin(subject, verb=REMOVE)
    bells.answer()
    assert (state_of(first), state_of(second), state_of(subject)) == ("cancelled", "done", "deleted")


def test_what_superseded_something_half_done_is_not_taken_back_to_the_state_before_it(bells):
    """Whoever asked had read the subject before it began to move."""
    subject = volume("available")
    early = Volume.objects.get(pk=subject.pk)
    begin(subject, {"act": "nothing", "moves": "resizing"}, {"act": "refuse", "lane": "bulk"}, verb=GROW)
    protocol.run_step(*bells.pop(0))
    second = begin(early, verb=REMOVE)
    engine.cancel(second, reason="by the tests")
    assert (state_of(second), state_of(subject)) == ("cancelled", "error")


def test_superseding_while_a_step_settles_waits_for_the_settlement(bells, in_threads):
    """The step is done but for its COMMIT: the new operation sees either all of its end or none."""
    subject, settling, go_on = volume(), threading.Event(), threading.Event()

    def settle(run, result):
        settling.set()
        assert go_on.wait(20)

    parts.settled["nothing"] = settle
    first = begin(subject, {"act": "nothing", "task": "part"})
    [worker] = in_threads(lambda: protocol.run_step(*bells.pop(0)))
    assert settling.wait(20)
    [beginner] = in_threads(lambda: begin(subject, verb=REMOVE))
    assert not worker.done() and not beginner.done()
    go_on.set()
    worker.result(30)
    second = beginner.result(30)
    assert state_of(first) == "done", "it was finished when the second one got its turn"
    assert second.state == "queued"
    bells.answer()
    assert state_of(subject) == "deleted"


def test_superseding_a_step_that_is_being_claimed_never_leaves_it_running(bells, in_threads):
    """Cancel and claim meet: either the step never begins, or the successor waits for it."""
    for _ in range(15):
        ran = []
        act("note")(lambda run, ran=ran: ran.append(Operation.objects.get(pk=run.operation.pk).state))
        subject = volume()
        first = begin(subject, {"act": "note"})
        bell, start = bells.pop(0), threading.Barrier(2)

        def claim(start=start, bell=bell):
            start.wait(10)
            protocol.run_step(*bell)

        def supersede(start=start, subject=subject):
            start.wait(10)
            return begin(subject, verb=REMOVE)

        claimer, beginner = in_threads(claim, supersede)
        claimer.result(30)
        second = beginner.result(30)
        assert ran in ([], ["running"]), "an operation that had ended was still worked on"
        bells.answer()
        assert state_of(first) in ("cancelled", "done")
        assert (state_of(second), state_of(subject)) == ("done", "deleted")
        ends = Event.objects.filter(operation_uid=first.uid, name__in=["volume.build.cancelled", "volume.build.done"])
        assert ends.count() == 1


def test_superseding_while_undo_runs_waits_for_the_undo(bells, in_threads):
    subject, undoing, go_on = volume(), threading.Event(), threading.Event()

    def unmake(run):
        undoing.set()
        assert go_on.wait(20)
        return "gone"

    parts.undos["refuse"] = unmake
    first = begin(subject, {"act": "refuse", "task": "part"})
    [worker] = in_threads(lambda: protocol.run_step(*bells.pop(0)))
    assert undoing.wait(20)
    second = begin(subject, verb=REMOVE)
    assert second.state == "waiting"
    go_on.set()
    worker.result(30)
    bells.answer()
    assert (state_of(first), first.undone, state_of(second)) == ("failed", ["gone"], "done")
    assert state_of(subject) == "deleted"


def test_what_is_being_cancelled_can_be_superseded_and_says_so(bells):
    subject = volume()
    operation = begin(subject)
    operation.steps.update(state="running", worker="somewhere")
    engine.cancel(operation, reason="by the tests")
    assert engine.allowed_verbs(subject, engine.holder_of(subject.uid)) == ["remove"]
    waiting = begin(subject, verb=REMOVE)
    assert waiting.state == "waiting"
    assert engine.allowed_verbs(subject, engine.holder_of(subject.uid)) == [], "one waits already"
    assert engine.allowed_verbs(subject, waiting) == []


def test_superseding_twice_refuses_the_second_while_the_first_waits(bells, in_threads):
    subject, began, go_on = volume(), threading.Event(), threading.Event()

    @act("long")
    def long(run):
        began.set()
        assert go_on.wait(20)

    begin(subject, {"act": "long"})
    [worker] = in_threads(lambda: protocol.run_step(*bells.pop(0)))
    assert began.wait(20)
    second = begin(subject, verb=REMOVE)
    with pytest.raises(Conflict) as refused:
        begin(subject, verb=REMOVE)
    assert refused.value.extra["operation"] == second.uid
    go_on.set()
    worker.result(30)
    bells.answer()
    assert state_of(second) == "done"


def test_a_successor_that_cannot_begin_fails_and_lets_its_predecessor_end(bells):
    subject, other = volume(), volume("available")
    first = begin(subject, {"act": "nothing"}, {"act": "nothing", "lane": "bulk"})
    protocol.run_step(*bells.pop(0))
    holder = begin(other, verb=GROW)
    second = begin(subject, verb=REMOVE, also=[other.uid])
    assert (state_of(first), state_of(second)) == ("cancelled", "failed")
    assert holder.uid in second.error["message"]
    assert not OperationSubject.objects.filter(uid=subject.uid).exclude(hold=Hold.CLOSED).exists()
    assert state_of(subject) == "error"


def test_a_plan_with_a_bug_fails_the_successor_only(bells, monkeypatch):
    subject = volume()
    first = begin(subject)
    second = begin(subject, {"lane": 7, "act": {}, "moves": ["x"], "node": {}, "retries": "many"}, verb=REMOVE)
    assert (state_of(first), state_of(second)) == ("cancelled", "failed")
    assert second.error["message"]


def test_file_lock_of_the_subject_makes_a_newer_attempt_wait(bells, quick, in_threads, monkeypatch):
    """The first attempt lost its claim but cannot be stopped: the next one must not work beside it."""
    from operations.recovery import lose

    inside, most, first_began, go_on, waits = [], [], threading.Event(), threading.Event(), threading.Event()
    pause = StepRun.pause
    monkeypatch.setattr(StepRun, "pause", lambda run, seconds: waits.set() or pause(run, seconds))

    @act("stubborn")
    def stubborn(run):
        inside.append(run.step.attempt)
        most.append(len(inside))
        if run.step.attempt == 1:
            first_began.set()
            assert go_on.wait(20)
        inside.remove(run.step.attempt)

    operation = begin(volume(), {"act": "stubborn"})
    [first] = in_threads(lambda: protocol.run_step(*bells.pop(0)))
    assert first_began.wait(20)
    lose(Step.objects.get(operation=operation), "the test says so")
    [second] = in_threads(lambda: protocol.run_step(*bells.pop(0)))
    while not waits.wait(0.05):
        assert not second.done(), "it has its claim, and must wait for the file"
    assert Step.objects.filter(operation=operation, state="running", attempt=2).exists()
    assert len(most) == 1
    go_on.set()
    first.result(30)
    second.result(30)
    assert most == [1, 1]
    assert state_of(operation) == "done"


def test_waiting_for_the_file_lock_has_a_deadline_too(bells, quick, in_threads):
    from operations.locks import subject_lock

    subject = volume()
    with subject_lock(subject.uid, lambda seconds: pytest.fail("it was free")):
        operation = begin(subject, {"act": "nothing", "deadline_s": 5, "retries": 0})
        bells.answer()
    assert state_of(operation) == "failed"
    assert f"an earlier attempt still works on {subject.uid}" in operation.error["message"]


def test_what_happened_without_us_is_settled_unless_an_operation_is_open(bells):
    subject = volume("available")
    frm = frozenset({"available"})
    assert engine.observed(subject, "error", frm=frm, evidence="the disk was seen to burn")
    assert state_of(subject) == "error"
    assert not engine.observed(subject, "error", frm=frm, evidence="again"), "not from this state"
    busy = volume("available")
    operation = begin(busy, verb=GROW)
    assert not engine.observed(busy, "error", frm=frm, evidence="the disk was seen to smoke")
    assert state_of(busy) == "available"
    story = Event.objects.filter(operation_uid=operation.uid).values_list("message", flat=True)
    assert "the disk was seen to smoke" in story, "it is evidence for that operation"


def test_a_refusal_of_a_step_is_told_as_it_was_said(bells):
    @act("conflict")
    def conflict(run):
        raise Conflict("that name is taken", code="taken")

    @act("no")
    def no(run):
        raise Permanent("no")

    operation = begin(volume(), {"act": "conflict"})
    bells.answer()
    operation.refresh_from_db()
    assert operation.error["message"] == "that name is taken"
