"""Let go of what waits to be undone on a node that cannot work, where somebody wants an end: it is held.

Nothing is concluded about what is there. The operation ends and its subject is in error, free for retry or terminate,
which find what the node has done meanwhile.
"""

from __future__ import annotations

from django.db import transaction

from core.errors import Permanent
from operations import engine, register, timing
from operations.bell import ring
from operations.faults import told
from operations.models import Step
from operations.states import StepState

LOOK_EVERY_S = 5 * timing.SCALE


def give_up_silent_nodes(good_for_s: float) -> None:
    """Give up what a cancel would undo on nodes that cannot work, once they could have said so for a lease."""
    if good_for_s < timing.LEASE_S:
        return
    waiting = Step.objects.filter(ended_at=None, state=StepState.UNDOING, worker="", queued_at__isnull=False)
    asked = list(waiting.exclude(operation__cancel_reason="").values_list("operation_id", "node"))
    troubles = register.troubles_of(node for _, node in asked)
    for operation_id, node in asked:
        if node in troubles:
            _give_up(operation_id, troubles)


def _give_up(operation_id: int, troubles: dict[str, str]) -> None:
    with transaction.atomic():
        operation = engine.locked(operation_id)
        undoing = list(Step.objects.filter(operation=operation, state=StepState.UNDOING).order_by("-position"))
        if any(step.worker for step in undoing):
            return  # a worker has come back
        for step in undoing:
            if step.node not in troubles or (operation.held and register.tasks[step.task].whole):
                break  # is undone elsewhere, or stays
            why = f"{step.task} was not undone: {troubles[step.node]}"
            fault = Permanent(why, advice="Retry or terminate when the node is back.")
            step.state, step.ended_at, step.error = StepState.FAILED, operation.db_now, told(fault, step=step.task)
            step.save(update_fields=["state", "ended_at", "error"])
            operation.held.append(why)
        operation.save(update_fields=["held"])
        if bell := engine.advance(operation):
            transaction.on_commit(lambda: ring(*bell), robust=True)
