"""Settle steps past their deadline that nobody works on, by what their node has seen since they began.

A step whose worker died while its lane does not come back may have reached its goal all the same; the observer of its
node has written what it saw. Without such evidence nothing is concluded: the step waits for its lane.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from django.db import transaction
from django.db.models import DurationField, ExpressionWrapper, F, Value
from django.db.models.functions import Now

from operations import engine, register, timing
from operations.alone import alone
from operations.bell import ring
from operations.events import note_of
from operations.models import Step
from operations.states import StepState

LOOK_EVERY_S = 5 * timing.SCALE
WORKER = "nobody, by evidence"


def settle_by_evidence(good_for_s: float) -> None:
    """Look at what is past its deadline, once its workers could have spoken for a lease."""
    if good_for_s < timing.LEASE_S:
        return
    deadline = ExpressionWrapper(F("deadline_s") * Value(timedelta(seconds=timing.SCALE)), output_field=DurationField())
    provable = [name for name, task in register.tasks.items() if task.evidence is not None]
    late = Step.objects.filter(ended_at=None, state=StepState.QUEUED, worker="", task__in=provable)
    for step in late.filter(claimed_at__lt=Now() - deadline, operation__cancel_reason=""):
        alone(f"late step {step.pk}", partial(_settle, step))


def _settle(late: Step) -> None:
    with transaction.atomic():
        operation = engine.locked(late.operation_id)
        step = Step.objects.get(pk=late.pk)
        if (step.state, step.worker, step.attempt) != (StepState.QUEUED, "", late.attempt) or operation.cancel_reason:
            return
        seen = register.tasks[step.task].evidence(operation, step)
        if not seen:
            return
        step.state, step.ended_at, step.result = StepState.DONE, operation.db_now, {"evidence": seen}
        step.attempts.append(
            {
                "number": step.attempt,
                "worker": WORKER,
                "started_at": step.claimed_at.isoformat(),
                "ended_at": operation.db_now.isoformat(),
                "outcome": "done",
                "error": None,
            }
        )
        step.save()
        note_of(operation, "evidence", f"{step.task} is past its deadline and counts as done: {seen}")
        engine.settle(step.settles)
        if bell := engine.advance(operation):
            transaction.on_commit(lambda: ring(*bell), robust=True)
