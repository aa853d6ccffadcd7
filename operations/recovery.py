"""Give a step whose worker vanished to its next attempt, and lost bells a second ring."""

from __future__ import annotations

from functools import partial

from django.db import transaction

from core.errors import Permanent
from operations import engine, timing
from operations.alone import alone
from operations.bell import ring
from operations.events import note_of
from operations.faults import told
from operations.models import Step
from operations.ringing import ring_missing, waiting
from operations.states import OperationState, StepState


def lose(step: Step, why: str) -> bool:
    """Count this attempt as lost and queue the next one; False: its worker has spoken meanwhile."""
    with transaction.atomic():
        operation = engine.locked(step.operation_id)
        current = Step.objects.get(pk=step.pk)
        if (current.attempt, current.worker) != (step.attempt, step.worker) or current.ended_at is not None:
            return False
        current.attempts.append(
            {
                "number": current.attempt,
                "worker": current.worker,
                "started_at": current.claimed_at.isoformat(),
                "ended_at": operation.db_now.isoformat(),
                "outcome": "lost",
                "error": why,
            }
        )
        current.attempt += 1
        current.losses += 1
        current.worker = ""
        current.lease_until = None
        current.not_before = None
        current.rings = 0
        current.queued_at = current.rung_at = operation.db_now
        if current.state == StepState.RUNNING:
            current.state = StepState.QUEUED
        current.save()
        note_of(operation, "attempt_lost", f"attempt {step.attempt} of {step.task} was lost: {why}")
        bell = _next(operation, current, why)
        if bell is not None:
            transaction.on_commit(lambda: ring(*bell), robust=True)
    return True


def _next(operation: engine.Operation, step: Step, why: str) -> engine.Bell | None:
    if step.state == StepState.QUEUED and operation.cancel_reason:
        return engine.end(operation, OperationState.CANCELLED)
    if step.losses < timing.MOST_LOSSES:
        return step.pk, step.attempt, step.task, step.node, step.lane
    fault = Permanent(
        f"{step.task} lost its worker {step.losses} times; last: {why}",
        advice="Look at the log of the lane and at the memory of the node before trying again.",
    )
    step.error = error = told(fault, step=step.task)
    step.ended_at = operation.db_now
    undoing = step.state == StepState.UNDOING
    step.state = StepState.FAILED
    step.save()
    if undoing:
        engine.hold(operation, step)
        operation.save(update_fields=["held"])
        return engine.advance(operation)
    return engine.end(operation, OperationState.FAILED, error=error)


def take_over(nodes: list[str], lane: str) -> int:
    """A lane that starts and holds its lock: what was running here before is nobody's now. Returns how many steps.

    What waits is rung for, too: a worker that goes down can swallow a bell, even that of the step it hands back.
    """
    orphans = list(Step.objects.filter(node__in=nodes, lane=lane, ended_at=None).exclude(worker=""))
    for step in orphans:
        alone(f"orphan step {step.pk}", partial(lose, step, f"its worker {step.worker} ended before the step did"))
    ring_missing(waiting().filter(node__in=nodes, lane=lane))
    return len(orphans)


def ask_for_bells(nodes: list[str], lane: str) -> None:
    """A lane that starts: bells that the process before it took along are rung again by the sweep's next round."""
    waiting = Step.objects.filter(node__in=nodes, lane=lane, ended_at=None, worker="", queued_at__isnull=False)
    waiting.update(rung_at=None, rings=0)
