"""What happens around every step: claim → heartbeat → run → settle, the same for all.

bell ──► claim ──► subject lock ──► work ──► settle ──► next step, inline if it is ours too
           │ lost                     │        │ lost: another attempt owns it; write nothing
           └─ nothing                 └─ Unreachable: ask again, same attempt
"""

from __future__ import annotations

import random
import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from django.core.exceptions import ObjectDoesNotExist
from django.db import close_old_connections, connection, transaction
from django.db.models import F
from django.db.models.functions import Coalesce, Now

from core.claim import claim
from core.database import DATABASE_ERRORS, unreachable
from core.errors import Cancelled, Fenced, Transient, Unreachable, WorkError
from core.logs import overheard
from operations import engine, register, timing
from operations.bell import ring
from operations.events import note_of
from operations.faults import foreseen, told
from operations.keeper import keeper
from operations.locks import subject_lock
from operations.models import Operation, Step
from operations.run import StepRun, Stopping, worker_name
from operations.settling import until_known
from operations.states import OperationState, StepState
from operations.task import StepTask

log = structlog.get_logger()

PAUSE_UNREACHABLE_S = 1 * timing.SCALE
WORTH_TELLING_S = 1.0  # a result that waited longer for the database says so in the story


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended: done, retried, failed, cancelled or stopped (handed back)."""

    word: str
    result: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None


def run_step(step_id: int, attempt: int) -> None:
    """Answer one bell: run the step, and go on inline with what follows on the same node and lane.

    A process that goes down takes nothing more, not even what it has just handed back; the next one asks for its bells.
    """
    follow: tuple[int, int] | None = (step_id, attempt)
    while follow is not None and not keeper.stopping:
        mine = f"{worker_name()}/{secrets.token_hex(3)}"  # of this one claim: tells our lost answer from a twin's claim
        run = until_known(partial(_claimed, *follow, mine), f"claim of step {follow[0]}")
        follow = _attempt(run) if run else None


def _claimed(step_id: int, attempt: int, mine: str) -> StepRun | None:
    """Claim the step if it waits for exactly this attempt; None: a late or double bell."""
    close_old_connections()
    changes = {
        "worker": mine,
        "claimed_at": Now(),
        "started_at": Coalesce(F("started_at"), Now()),
        "lease_until": Now() + timedelta(seconds=timing.LEASE_S),
    }
    waiting = Step.objects.filter(pk=step_id, attempt=attempt, worker="")
    with transaction.atomic():
        # Under the operation's lock, so that a cancel sees the step either queued or in hand.
        operation = Operation.objects.select_for_update(of=("self",)).filter(steps=step_id).first()
        if operation is None:
            return None
        claimed = (
            claim(waiting.filter(state=StepState.QUEUED), state=StepState.RUNNING, **changes)
            or claim(waiting.filter(state=StepState.UNDOING, queued_at__isnull=False), **changes)
            or Step.objects.filter(pk=step_id, attempt=attempt, worker=mine).exists()  # the answer had been lost
        )
        if not claimed:
            return None
        if operation.state == OperationState.QUEUED:
            operation.state = OperationState.RUNNING
            Operation.objects.filter(pk=operation.pk).update(state=operation.state, started_at=Now())
        step = Step.objects.get(pk=step_id)
    return StepRun(step, operation)


def _attempt(run: StepRun) -> tuple[int, int] | None:
    task = register.tasks[run.step.task]
    begun = time.monotonic()
    words = structlog.contextvars.bound_contextvars(**run.words)
    try:
        with words, overheard(run.log.add), keeper.keeping(run), ExitStack() as held:
            outcome = _waited(held, run) or _work(task, run)
            follow = _say(task, run, outcome)
            log.info(_heading(run, outcome), ms=round((time.monotonic() - begun) * 1000, 1))
            return follow
    except Fenced as fenced:
        log.warning("this attempt was given to someone else; nothing is written", reason=fenced.message)
    return None


def _heading(run: StepRun, outcome: Outcome) -> str:
    """ "step done", "undo failed": how the lane's log tells the end of an attempt; the row has the rest."""
    return f"{'undo' if run.undoing else 'step'} {outcome.word}"


def _waited(held: ExitStack, run: StepRun) -> Outcome | None:
    """Wait until no other attempt works on the subject; an Outcome when the wait was ended. The lock goes to `held`."""
    try:
        held.enter_context(subject_lock(run.subject_uid, run.pause))
    except Fenced:
        raise
    except Transient as too_long:
        fault = Transient(f"an earlier attempt still works on {run.subject_uid}: {too_long.message}")
        return _outcome_of(fault, run)
    except WorkError as early:
        return _outcome_of(early, run)
    return None


def _work(task: StepTask, run: StepRun) -> Outcome:
    while True:
        try:
            run.checkpoint()
            if run.undoing:
                said = task.undo(run) if task.undo else ""
                return Outcome("done", {"undone": said or f"{task.name} was undone"})
            return Outcome("done", task.work(run) or {})
        except Fenced:
            raise
        except Unreachable as away:
            log.warning("work waits for the database", error=away.message)
        except WorkError as fault:
            return _outcome_of(fault, run)
        except DATABASE_ERRORS as exc:
            if not unreachable(exc):
                return _outcome_of(foreseen(exc), run)
            log.warning("work waits for the database", error=str(exc).strip())
            connection.close()
        except Exception as exc:
            log.exception("a step failed in a way that nobody foresaw")
            return _outcome_of(foreseen(exc), run)
        try:
            run.pause(PAUSE_UNREACHABLE_S)
        except Fenced:
            raise
        except WorkError as fault:
            return _outcome_of(fault, run)


def _outcome_of(fault: WorkError, run: StepRun) -> Outcome:
    error = told(fault, step=run.step.task)
    log.warning(fault.message, fault=error["class"], at=error["place"])
    if isinstance(fault, Cancelled):
        return Outcome("cancelled", error=error)
    if isinstance(fault, Stopping):
        return Outcome("stopped", error=error)
    if isinstance(fault, Transient) and run.step.retries_left > 0:
        return Outcome("retried", error=error)
    return Outcome("failed", error=error)


# --- settle ----------------------------------------------------------------------------------------------------


def _say(task: StepTask, run: StepRun, outcome: Outcome) -> tuple[int, int] | None:
    """Settle until it is known; when the rows refuse the result, that is how the step failed."""
    known_at = time.monotonic()
    try:
        return until_known(partial(_settle, task, run, outcome, known_at), f"end of {run.tag}")
    except Fenced:
        raise
    except Exception as exc:
        log.exception("the end of a step could not be written in a way that nobody foresaw")
        outcome = Outcome("failed", error=told(foreseen(exc), step=run.step.task))
        return until_known(partial(_settle, task, run, outcome, known_at), f"failure of {run.tag}")


def _settle(task: StepTask, run: StepRun, outcome: Outcome, known_at: float) -> tuple[int, int] | None:
    """Write the end of this attempt and what follows, in one transaction; (step, attempt) to go on with inline.

    `known_at`: when this process knew the outcome, by its monotonic clock.
    """
    close_old_connections()
    with transaction.atomic(durable=True):
        operation, step = _mine(run)
        if step is not None:
            _note_wait(operation, step, time.monotonic() - known_at)
        # An earlier try of ours may have been written, and what it was to ring not been rung.
        bell = _write(task, run, outcome, operation, step) if step is not None else _waiting_bell(operation)
    return _follow(run, bell)


def _note_wait(operation: Operation, step: Step, untold_s: float) -> None:
    """Waits are part of the story, so that nobody takes them for slow work."""
    since = max(filter(None, (step.queued_at, step.not_before)), default=step.claimed_at)
    waited_s = (step.claimed_at - since).total_seconds()
    if waited_s > timing.FIRST_RING_S:
        where = f"the lane {step.lane}" + (f" on node {step.node}" if step.node else "")
        rings = f"; its bell was rung again {step.rings} times" if step.rings else ""
        note_of(operation, "waited", f"{step.task} waited {waited_s:.1f} s for a free worker of {where}{rings}")
    if untold_s > WORTH_TELLING_S:
        note_of(
            operation, "waited", f"the end of {step.task} was known {untold_s:.1f} s before the database could be told"
        )


def _mine(run: StepRun) -> tuple[Operation, Step | None]:
    """The operation under its lock, and the step while this attempt has it; None: its end is written already.

    Raises Fenced when somebody else has the step now.
    """
    try:
        operation = engine.locked(run.operation.pk)
        step = Step.objects.get(pk=run.step.pk)
    except ObjectDoesNotExist as gone:
        raise Fenced(f"{run.operation.uid} is not there any more") from gone
    if (step.attempt, step.worker) == (run.step.attempt, run.step.worker):
        return operation, None if step.ended_at is not None else step
    if _told_already(step, run):
        return operation, None
    raise Fenced(f"attempt {run.step.attempt} of {run.step.task} was given to someone else")


def _told_already(step: Step, run: StepRun) -> bool:
    """An earlier try of ours was written although its answer was lost, and has queued a new attempt since."""
    return any(
        past["number"] == run.step.attempt and past["worker"] == run.step.worker and past["outcome"] != "lost"
        for past in step.attempts
    )


def _waiting_bell(operation: Operation) -> engine.Bell | None:
    step = (
        Step.objects.filter(operation=operation, worker="", queued_at__isnull=False, ended_at=None)
        .filter(state__in=[StepState.QUEUED, StepState.UNDOING], not_before=None)
        .first()
    )
    return step and (step.pk, step.attempt, step.task, step.node, step.lane)


def _write(task: StepTask, run: StepRun, outcome: Outcome, operation: Operation, step: Step) -> engine.Bell | None:
    if operation.cancel_reason and not run.undoing and outcome.word in ("retried", "stopped"):
        outcome = replace(outcome, word="cancelled")  # nobody wants a next attempt
    step.commands, step.log = run.commands, run.log.text()
    step.progress_done, step.progress_total, step.progress_unit = run.done, run.total, run.unit
    step.attempts.append(_attempt_record(step, operation, outcome))
    step.lease_until = None
    if outcome.word in ("retried", "stopped"):
        _queue_again(step, operation, outcome)
        if outcome.word == "stopped":
            return step.pk, step.attempt, step.task, step.node, step.lane
        return None  # the sweep rings when the pause is over
    step.ended_at = operation.db_now
    if run.undoing:
        return _write_undone(task, run, outcome, operation, step)
    step.state = {"done": StepState.DONE, "failed": StepState.FAILED, "cancelled": StepState.CANCELLED}[outcome.word]
    step.result, step.error = outcome.result, outcome.error
    step.save()
    if outcome.word == "done":
        if task.on_settle is not None:
            task.on_settle(run, outcome.result)
        engine.settle(step.settles)
        return engine.advance(operation)
    if outcome.word == "failed":
        note_of(operation, "step_failed", f"{step.task} failed: {outcome.error['message']}")
    if operation.cancel_reason or outcome.word == "cancelled":
        return engine.end(operation, OperationState.CANCELLED)
    return engine.end(operation, OperationState.FAILED, error=outcome.error)


def _attempt_record(step: Step, operation: Operation, outcome: Outcome) -> dict[str, Any]:
    return {
        "number": step.attempt,
        "worker": step.worker,
        "started_at": step.claimed_at.isoformat(),
        "ended_at": operation.db_now.isoformat(),
        "outcome": "undone" if step.state == StepState.UNDOING and outcome.word == "done" else outcome.word,
        "error": outcome.error and outcome.error["message"],
    }


def _queue_again(step: Step, operation: Operation, outcome: Outcome) -> None:
    step.state = StepState.UNDOING if step.state == StepState.UNDOING else StepState.QUEUED
    step.attempt += 1
    step.worker = ""
    step.queued_at = operation.db_now
    step.rings = 0
    if outcome.word == "retried":
        tries = sum(past["outcome"] == "retried" for past in step.attempts)
        most_s = min(timing.RETRY_FIRST_S * 2 ** (tries - 1), timing.RETRY_LAST_S)
        pause_s = random.uniform(most_s / 2, most_s)  # noqa: S311 - spreads retries, hides nothing
        step.retries_left -= 1
        step.not_before = operation.db_now + timedelta(seconds=pause_s)
        note_of(operation, "retry", f"{step.task} will be tried again in {pause_s:.0f} s: {outcome.error['message']}")
    else:
        step.not_before = None
        step.rung_at = operation.db_now
    step.save()


def _write_undone(
    task: StepTask, run: StepRun, outcome: Outcome, operation: Operation, step: Step
) -> engine.Bell | None:
    if outcome.word == "done":
        step.state = StepState.UNDONE
        step.result = {}
        operation.undone.append(outcome.result["undone"])
        if task.on_undone is not None:
            task.on_undone(run)
    else:
        step.state = StepState.FAILED
        step.error = outcome.error
        operation.held.append(f"{step.task} could not be undone: {outcome.error['message']}")
    step.save()
    operation.save(update_fields=["undone", "held"])
    return engine.advance(operation)


def _follow(run: StepRun, bell: engine.Bell | None) -> tuple[int, int] | None:
    if bell is None:
        return None
    step_id, attempt, _, node, lane = bell
    if (node, lane) == (run.step.node, run.step.lane) and not keeper.stopping:
        return step_id, attempt
    ring(*bell)
    return None
