"""What happens around every step: claim → heartbeat → run → settle, the same for all.

bell ──► claim ──► subject lock ──► work ──► settle ──► next step, inline if it is ours too
           │ lost                     │        │ lost: another attempt owns it; write nothing
           └─ nothing                 └─ Unreachable: ask again, same attempt
"""

from __future__ import annotations

import random
import secrets
import traceback
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections, connection, transaction
from django.db.models import F
from django.db.models.functions import Coalesce, Now

from core.claim import claim
from core.database import unreachable
from core.errors import Cancelled, Fenced, Permanent, Transient, Unreachable, WorkError
from operations import engine, register, timing
from operations.bell import ring
from operations.events import note_of
from operations.keeper import keeper
from operations.locks import subject_lock
from operations.models import Operation, Step
from operations.run import StepRun, Stopping, worker_name
from operations.settling import until_known
from operations.states import OperationState, StepState
from operations.task import StepTask

log = structlog.get_logger()

PAUSE_UNREACHABLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended: done, retried, failed, cancelled or stopped (handed back)."""

    word: str
    result: dict[str, Any] = field(default_factory=dict)
    fault: WorkError | None = None
    error: dict[str, Any] | None = None


def run_step(step_id: int, attempt: int) -> None:
    """Answer one bell: run the step, and go on inline with what follows on the same node and lane."""
    follow: tuple[int, int] | None = (step_id, attempt)
    while follow is not None:
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
        claimed = (
            claim(waiting.filter(state=StepState.QUEUED), state=StepState.RUNNING, **changes)
            or claim(waiting.filter(state=StepState.UNDOING, queued_at__isnull=False), **changes)
            or Step.objects.filter(pk=step_id, attempt=attempt, worker=mine).exists()  # the answer had been lost
        )
        if not claimed:
            return None
        step = Step.objects.select_related("operation").get(pk=step_id)
        if step.operation.state == OperationState.QUEUED:
            Operation.objects.filter(pk=step.operation_id, state=OperationState.QUEUED).update(
                state=OperationState.RUNNING, started_at=Now()
            )
    return StepRun(step, step.operation)


def _attempt(run: StepRun) -> tuple[int, int] | None:
    task = register.tasks[run.step.task]
    words = structlog.contextvars.bound_contextvars(
        operation=run.operation.uid, step=run.step.task, attempt=run.step.attempt, node=run.step.node or None
    )
    try:
        with words, keeper.keeping(run), subject_lock(run.subject_uid, run.pause):
            outcome = _work(task, run)
            return until_known(partial(_settle, task, run, outcome), f"end of {run.tag}")
    except Fenced as fenced:
        log.warning("this attempt was given to someone else; nothing is written", reason=fenced.message)
    except (Cancelled, Stopping, Transient) as early:  # while waiting for the subject's lock
        return until_known(partial(_settle, task, run, _outcome_of(early, run)), f"end of {run.tag}")
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
        except (DatabaseError, InterfaceError) as exc:
            if not unreachable(exc):
                return _outcome_of(_bug(exc), run)
            log.warning("work waits for the database", error=str(exc).strip())
            connection.close()
        except Exception as exc:
            log.exception("a step failed in a way that nobody foresaw")
            return _outcome_of(_bug(exc), run)
        try:
            run.pause(PAUSE_UNREACHABLE_S)
        except Fenced:
            raise
        except WorkError as fault:
            return _outcome_of(fault, run)


def _bug(exc: Exception) -> Permanent:
    fault = Permanent(
        f"{type(exc).__name__}: {exc}",
        advice="This is a defect of the software: please report it with this story.",
    )
    fault.__traceback__ = exc.__traceback__
    return fault


def _outcome_of(fault: WorkError, run: StepRun) -> Outcome:
    error = {
        "class": type(fault).__name__,
        "message": fault.message,
        "advice": fault.advice,
        "step": run.step.task,
        "place": _place(fault),
    }
    if isinstance(fault, Cancelled):
        return Outcome("cancelled", fault=fault, error=error)
    if isinstance(fault, Stopping):
        return Outcome("stopped", fault=fault, error=error)
    if isinstance(fault, Transient) and run.step.retries_left > 0:
        return Outcome("retried", fault=fault, error=error)
    return Outcome("failed", fault=fault, error=error)


def _place(fault: BaseException) -> str:
    """Where it was raised: "volumes/tasks.py:41 in fetch_image", the innermost line of ours."""
    root = Path(settings.BASE_DIR)
    frames = traceback.extract_tb(fault.__traceback__)
    ours = [frame for frame in frames if root in Path(frame.filename).parents and ".venv" not in frame.filename]
    if not (ours or frames):
        return ""
    frame = (ours or frames)[-1]
    path = Path(frame.filename)
    shown = path.relative_to(root) if root in path.parents else path.name
    return f"{shown}:{frame.lineno} in {frame.name}"


# --- settle ----------------------------------------------------------------------------------------------------


def _settle(task: StepTask, run: StepRun, outcome: Outcome) -> tuple[int, int] | None:
    """Write the end of this attempt and what follows, in one transaction; (step, attempt) to go on with inline."""
    close_old_connections()
    with transaction.atomic(durable=not _in_test_transaction()):
        operation = engine.locked(run.operation.pk)
        step = Step.objects.get(pk=run.step.pk)
        if step.attempt != run.step.attempt or step.worker != run.step.worker:
            if _told_already(step, run):
                bell = _waiting_bell(operation)
            else:
                raise Fenced(f"attempt {run.step.attempt} of {run.step.task} was given to someone else")
        elif step.ended_at is not None:
            bell = _waiting_bell(operation)  # an earlier try of ours had been written
        else:
            bell = _write(task, run, outcome, operation, step)
    return _follow(run, bell)


def _in_test_transaction() -> bool:
    return connection.in_atomic_block


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
    step.commands = run.commands
    step.progress_done, step.progress_total, step.progress_unit = run.done, run.total, run.unit
    step.attempts.append(_attempt_record(step, operation, outcome))
    step.lease_until = None
    if outcome.word in ("retried", "stopped"):
        _queue_again(step, operation, outcome)
        if outcome.word == "stopped":
            return step.pk, step.attempt, step.task, step.node, step.lane
        return None  # the sweep rings when the pause is over
    step.ended_at = operation.db_now
    step.result = outcome.result
    step.error = outcome.error
    if run.undoing:
        return _write_undone(task, run, outcome, operation, step)
    step.state = {"done": StepState.DONE, "failed": StepState.FAILED, "cancelled": StepState.CANCELLED}[outcome.word]
    step.save()
    if outcome.word == "done":
        if task.on_settle is not None:
            task.on_settle(run, outcome.result)
        engine.move(step.settles)
        return engine.advance(operation)
    if outcome.word == "cancelled":
        return engine.end(operation, OperationState.CANCELLED)
    note_of(operation, "step_failed", f"{step.task} failed: {outcome.error['message']}")
    return engine.end(operation, OperationState.FAILED, error=outcome.error)


def _attempt_record(step: Step, operation: Operation, outcome: Outcome) -> dict[str, Any]:
    return {
        "number": step.attempt,
        "worker": step.worker,
        "started_at": step.claimed_at.isoformat(),
        "ended_at": operation.db_now.isoformat(),
        "outcome": outcome.word,
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
        operation.undone.append(outcome.result["undone"])
        step.result = {}
        if task.on_undone is not None:
            task.on_undone(run)
    else:
        step.state = StepState.FAILED
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
