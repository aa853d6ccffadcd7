"""Let go of what waits to be undone where nobody can work, if somebody wants an end: it is held.

Nothing is concluded about what is there. The operation ends and its subject is in error, free for retry or terminate,
which find what the node has done meanwhile.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from django.db import transaction
from django.db.models.functions import Now

from core.errors import Permanent
from operations import engine, register, timing
from operations.alone import alone
from operations.answering import Answering
from operations.bell import is_heard, ring
from operations.faults import told
from operations.models import Step
from operations.states import StepState

LOOK_EVERY_S = 5 * timing.SCALE
LANE_IS_DEAD_AFTER_S = 120 * timing.SCALE  # for an undo in its queue, while nobody works there at all

_redis = Answering()


def give_up(good_for_s: float) -> None:
    """Give up what a cancel would undo where nobody can work, once they could have said so for a lease."""
    if good_for_s < timing.LEASE_S:
        return
    waiting = Step.objects.filter(ended_at=None, state=StepState.UNDOING, worker="", queued_at__isnull=False)
    asked = list(waiting.exclude(operation__cancel_reason=""))
    troubles = register.troubles_of(step.node for step in asked)
    bells_ring = any(step.node not in troubles for step in asked) and _redis_answers()
    for step in asked:
        if step.node in troubles or (bells_ring and _is_dead(step)):
            alone(f"given up step {step.pk}", partial(_give_up, step.operation_id, troubles, bells_ring))


def _redis_answers() -> bool:
    """Has it for so long that whoever works in a lane must have heard of what waits there?"""
    if not is_heard():
        _redis.interrupted()
        return False
    return _redis.for_s() >= LANE_IS_DEAD_AFTER_S


def _is_dead(step: Step) -> bool:
    """Has it waited long in a lane in which nobody works? One that is full of other work is alive."""
    in_lane = Step.objects.filter(node=step.node, lane=step.lane, ended_at=None)
    too_long = Now() - timedelta(seconds=LANE_IS_DEAD_AFTER_S)
    return in_lane.filter(pk=step.pk, queued_at__lt=too_long).exists() and not (
        in_lane.filter(lease_until__gt=Now()).exists()
    )


def _give_up(operation_id: int, troubles: dict[str, str], bells_ring: bool) -> None:
    with transaction.atomic():
        operation = engine.locked(operation_id)
        undoing = list(Step.objects.filter(operation=operation, state=StepState.UNDOING).order_by("-position"))
        if not undoing or any(step.worker for step in undoing):
            return  # a worker has come back, or has even brought the operation to its end
        for step in undoing:
            trouble = troubles.get(step.node)
            if not trouble and bells_ring and step.queued_at and _is_dead(step):
                trouble = _dead_lane(step)
            if not trouble or (operation.held and register.tasks[step.task].whole):
                break  # is undone elsewhere, or stays
            why = f"{step.task} was not undone: {trouble}"
            fault = Permanent(why, advice="Retry or terminate when the node is back.")
            step.state, step.ended_at, step.error = StepState.FAILED, operation.db_now, told(fault, step=step.task)
            step.save(update_fields=["state", "ended_at", "error"])
            operation.held.append(why)
        operation.save(update_fields=["held"])
        if bell := engine.advance(operation):
            transaction.on_commit(lambda: ring(*bell), robust=True)


def _dead_lane(step: Step) -> str:
    where = f"the lane {step.lane}" + (f" of node {step.node}" if step.node else "")
    return f"nobody has worked in {where} since {step.queued_at:%Y-%m-%d %H:%M:%S} UTC"
