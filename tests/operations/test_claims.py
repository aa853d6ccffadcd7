"""One bell, many ears: a step is worked on once for each attempt, whatever rings."""

from __future__ import annotations

import threading

import pytest
from django.db.models.functions import Now

from operations import protocol
from operations.models import Event, Operation, Step
from operations.recovery import lose
from tests.operations import parts
from tests.operations.parts import act, begin, steps_of, volume


def test_eight_bells_at_once_do_the_work_once(bells, in_threads):
    did = []
    act("count")(lambda run: did.append(run.tag))
    for _ in range(5):
        did.clear()
        operation = begin(volume(), {"act": "count"})
        [(step_id, attempt)] = bells
        bells.clear()
        start = threading.Barrier(8)

        def answer(start=start, step_id=step_id, attempt=attempt):
            start.wait(10)
            protocol.run_step(step_id, attempt)

        for future in in_threads(*[answer] * 8):
            future.result(30)
        operation.refresh_from_db()
        assert (operation.state, len(did)) == ("done", 1)
        assert Event.objects.filter(name="volume.build.done", operation_uid=operation.uid).count() == 1


def test_a_bell_for_an_older_or_a_later_attempt_does_nothing(bells):
    operation = begin(volume())
    [(step_id, attempt)] = bells
    protocol.run_step(step_id, attempt - 1)
    protocol.run_step(step_id, attempt + 1)
    protocol.run_step(step_id + 1000, attempt)
    assert [step.state for step in steps_of(operation)] == ["queued"]


def test_a_late_bell_for_a_step_that_is_done_does_nothing(bells):
    did = []
    act("count")(lambda run: did.append(run.tag))
    operation = begin(volume(), {"act": "count"})
    [bell] = bells
    bells.answer()
    protocol.run_step(*bell)
    assert len(did) == 1
    assert len(steps_of(operation)[0].attempts) == 1


def test_a_fenced_attempt_writes_nothing(bells):
    """Its lease ran out, the next attempt is queued: then its result comes."""
    wrote = []
    parts.settled["outlived"] = lambda run, result: wrote.append(result)

    @act("outlived")
    def outlived(run):
        lose(Step.objects.get(pk=run.step.pk), "the test says so")
        return {"made": "by the first attempt"}

    subject = volume()
    operation = begin(subject, {"act": "outlived", "task": "part"})
    protocol.run_step(*bells.pop(0))
    [step] = steps_of(operation)
    assert (step.state, step.attempt, step.result, step.worker) == ("queued", 2, {}, "")
    assert [past["outcome"] for past in step.attempts] == ["lost"]
    assert wrote == []
    act("outlived")(lambda run: {"made": "by the second attempt"})
    bells.answer()
    [step] = steps_of(operation)
    assert (step.state, step.result) == ("done", {"made": "by the second attempt"})
    assert [past["outcome"] for past in step.attempts] == ["lost", "done"]
    assert wrote == [{"made": "by the second attempt"}]


def test_a_fenced_attempt_writes_nothing_while_its_successor_works(bells, in_threads):
    """Both are running at once: only the worker and attempt that hold the claim may settle."""
    second_runs = threading.Event()

    @act("twice")
    def twice(run):
        if run.step.attempt == 1:
            lose(Step.objects.get(pk=run.step.pk), "the test says so")
            claimed = protocol._claimed(run.step.pk, 2, "elsewhere:1/abc")
            assert claimed is not None
            second_runs.set()
        return {"by": run.step.attempt}

    operation = begin(volume(), {"act": "twice"})
    [future] = in_threads(lambda: protocol.run_step(*bells.pop(0)))
    future.result(30)
    assert second_runs.is_set()
    [step] = steps_of(operation)
    assert (step.state, step.attempt, step.worker, step.result) == ("running", 2, "elsewhere:1/abc", {})


def test_the_keeper_stops_an_attempt_that_lost_its_claim(bells, quick):
    @act("long")
    def long(run):
        lose(Step.objects.get(pk=run.step.pk), "the test says so")
        run.pause(30)
        pytest.fail("the keeper did not stop it")

    operation = begin(volume(), {"act": "long"})
    protocol.run_step(*bells.pop(0))
    assert steps_of(operation)[0].state == "queued"


def test_the_keeper_renews_the_lease_and_writes_progress(bells, quick):
    seen = []

    @act("copy")
    def copy(run):
        began = Step.objects.get(pk=run.step.pk).lease_until
        run.progress(7, 10, "bytes")
        while not seen:
            run.pause(0.02)
            step = Step.objects.get(pk=run.step.pk)
            if step.lease_until > began and step.progress_done == 7:
                seen.append((step.progress_total, step.progress_unit))

    begin(volume(), {"act": "copy"})
    bells.answer()
    assert seen == [(10, "bytes")]


def test_an_operation_that_was_deleted_stops_its_step(bells):
    act("orphan")(lambda run: Operation.objects.filter(pk=run.operation.pk).delete() and None)
    begin(volume(), {"act": "orphan"})
    bells.answer()
    assert not Step.objects.exists()


def test_a_step_needs_few_statements(bells, statements):
    """Claim and settle of one step, the bound of the worker's side."""
    begin(volume(), *[{"act": "nothing", "lane": lane} for lane in ("ops", "bulk", "ops")])
    counts = []
    while bells:
        with statements() as ran:
            protocol.run_step(*bells.pop(0))
        counts.append(ran)
    first, middle, last = counts
    assert len(first) <= 12, "\n".join(first)
    assert len(middle) <= 12, "\n".join(middle)
    assert len(last) <= 16, "\n".join(last)  # it ends the operation too


def test_a_next_step_that_does_not_wait_any_more_leaves_nothing_hanging(bells):
    """What its worker knew of the plan when it claimed the step is no proof: the rows decide what follows."""

    @act("take the next one away")
    def take_away(run):
        Step.objects.filter(operation=run.operation, position=2).update(state="cancelled", ended_at=Now())

    operation = begin(volume(), {"act": "take the next one away"}, {"act": "nothing"})
    bells.answer()
    operation.refresh_from_db()
    assert (operation.state, [step.state for step in steps_of(operation)]) == ("done", ["done", "cancelled"])
