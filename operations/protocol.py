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
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from django.core.exceptions import ObjectDoesNotExist
from django.db import close_old_connections, connection, transaction

from core.database import DATABASE_ERRORS, unreachable
from core.errors import Cancelled, Fenced, Transient, Unreachable, WorkError
from core.logs import overheard
from operations import engine, register, timing
from operations.bell import ring
from operations.events import note_of
from operations.faults import foreseen, told
from operations.handover import hand_on, lock, take, taken
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
    if keeper.stopping:
        return
    run = _claim(step_id, attempt)
    while run is not None:
        run = _attempt(run)


def _claim(step_id: int, attempt: int) -> StepRun | None:
    return until_known(partial(_claimed, step_id, attempt, _new_claim()), f"claim of step {step_id}")


def _new_claim() -> str:
    """The name of one claim of this worker: tells our own lost answer from a twin's claim."""
    return f"{worker_name()}/{secrets.token_hex(3)}"


def _claimed(step_id: int, attempt: int, mine: str) -> StepRun | None:
    """Claim the step if it waits for exactly this attempt; None: a late or double bell."""
    close_old_connections()
    steps = take(step_id, attempt, mine)
    return StepRun(steps[0], steps[0].operation, steps[1:]) if steps else None


def _attempt(run: StepRun) -> StepRun | None:
    """Do one attempt and settle it; returns the claim of what follows, where this worker goes on with it."""
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


def _say(task: StepTask, run: StepRun, outcome: Outcome) -> StepRun | None:
    """Settle until it is known; when the rows refuse the result, that is how the step failed."""
    known_at, next_claim = time.monotonic(), _new_claim()
    try:
        return until_known(partial(_settle, task, run, outcome, known_at, next_claim), f"end of {run.tag}")
    except Fenced:
        raise
    except Exception as exc:
        log.exception("the end of a step could not be written in a way that nobody foresaw")
        outcome = Outcome("failed", error=told(foreseen(exc), step=run.step.task))
        return until_known(partial(_settle, task, run, outcome, known_at, next_claim), f"failure of {run.tag}")


def _settle(task: StepTask, run: StepRun, outcome: Outcome, known_at: float, next_claim: str) -> StepRun | None:
    """Write the end of this attempt and what follows, in one transaction; returns the claim of what goes on inline.

    `known_at`: when this process knew the outcome, by its monotonic clock. `next_claim`: the name of the next claim.
    """
    close_old_connections()
    follow = bell = None
    with transaction.atomic(durable=True):
        _lock(run)
        operation = run.operation
        as_planned = outcome.word == "done" and not (run.undoing or operation.ending or operation.cancel_reason)
        taker = next_claim if run.later and _goes_on_inline(run, run.later[0].node, run.later[0].lane) else ""
        if as_planned and _handed_on(run, outcome, operation, taker):
            _note_wait(operation, run.step, time.monotonic() - known_at)
            _settle_rows(task, run, outcome, run.step)
            if not run.later:
                bell = engine.advance(operation, steps=[])
            else:
                engine.move(run.later[0].moves)
                follow, bell = _next_of(run, operation, taker)
        elif (step := _mine(run)) is not None:
            _note_wait(operation, step, time.monotonic() - known_at)
            bell = _write(task, run, outcome, operation, step)
        else:  # an earlier try of ours was written, and what it was to take or to ring was not known
            follow, bell = _after_lost_answer(operation, next_claim)
    return follow or _follow(run, bell)


def _lock(run: StepRun) -> None:
    try:
        lock(run.operation)
    except ObjectDoesNotExist as gone:
        raise Fenced(f"{run.operation.uid} is not there any more") from gone


def _handed_on(run: StepRun, outcome: Outcome, operation: Operation, taker: str) -> bool:
    said = {"commands": run.commands, "log": run.log.text(), "done": run.done, "total": run.total, "unit": run.unit}
    return hand_on(
        run.step,
        result=outcome.result,
        record=_attempt_record(run.step, operation, outcome),
        said=said,
        next_step=run.later[0] if run.later else None,
        taker=taker,
    )


def _settle_rows(task: StepTask, run: StepRun, outcome: Outcome, step: Step) -> None:
    if task.on_settle is not None:
        task.on_settle(run, outcome.result)
    engine.settle(step.settles)


def _next_of(run: StepRun, operation: Operation, taker: str) -> tuple[StepRun | None, engine.Bell | None]:
    next_step, *later = run.later
    if not taker:
        return None, engine.bell_of(next_step)
    return StepRun(taken(copy(next_step), operation.db_now, taker), operation, later), None


def _after_lost_answer(operation: Operation, next_claim: str) -> tuple[StepRun | None, engine.Bell | None]:
    taken_then = Step.objects.filter(operation=operation, worker=next_claim, ended_at=None).first()
    if taken_then is None:
        return None, _waiting_bell(operation)
    later = Step.objects.filter(operation=operation, position__gt=taken_then.position).order_by("position")
    return StepRun(taken_then, operation, list(later)), None


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


def _mine(run: StepRun) -> Step | None:
    """The step while this attempt has it, under the operation's lock; None: its end is written already.

    Raises Fenced when somebody else has the step now.
    """
    step = Step.objects.get(pk=run.step.pk)
    if (step.attempt, step.worker) == (run.step.attempt, run.step.worker):
        return None if step.ended_at is not None else step
    if _told_already(step, run):
        return None
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
    return step and engine.bell_of(step)


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
            return engine.bell_of(step)
        return None  # the sweep rings when the pause is over
    step.ended_at = operation.db_now
    if run.undoing:
        return _write_undone(task, run, outcome, operation, step)
    step.state = {"done": StepState.DONE, "failed": StepState.FAILED, "cancelled": StepState.CANCELLED}[outcome.word]
    step.result, step.error = outcome.result, outcome.error
    step.save()
    if outcome.word == "done":
        _settle_rows(task, run, outcome, step)
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
        engine.hold(operation, step)
    step.save()
    operation.save(update_fields=["undone", "held"])
    return engine.advance(operation)


def _follow(run: StepRun, bell: engine.Bell | None) -> StepRun | None:
    if bell is None:
        return None
    step_id, attempt, _, node, lane = bell
    if _goes_on_inline(run, node, lane):
        return _claim(step_id, attempt)
    ring(*bell)
    return None


def _goes_on_inline(run: StepRun, node: str, lane: str) -> bool:
    return (node, lane) == (run.step.node, run.step.lane) and not keeper.stopping
