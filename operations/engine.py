"""Begin verbs, move their subjects, and end them: with `observed`, the only writers of a subject's state.

Every function here runs in one short transaction, and takes the operation's row lock first, so that a settling
step, a cancel and a sweep follow each other instead of crossing.
"""

from __future__ import annotations

from typing import Any

import structlog
from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.functions import Now

from core import logs
from core.claim import claim
from core.database import DATABASE_ERRORS
from core.errors import Conflict
from operations import register, resuming
from operations.bell import ring
from operations.events import note, note_of
from operations.faults import foreseen, told
from operations.handover import let_go
from operations.models import Operation, OperationSubject, Step
from operations.plan import Plan
from operations.register import Verb
from operations.states import Hold, OperationState, StepState

log = structlog.get_logger()

Bell = tuple[int, int, str, str, str]  # step id, attempt, task, node, lane

TRIES = 5  # to begin, while others let go of the subject and take it
UNDO_RETRIES = 4
MOST_REASON = 255  # characters
ERROR = "error"  # the state of every noun that says: look at `error`, what is so is not what was asked for


# --- begin -----------------------------------------------------------------------------------------------------


def begin(
    verb: Verb, subject: Any, *, requested_by: str, params: dict[str, Any] | None = None, account: Any = None
) -> Operation:
    """Begin `verb` on `subject`; returns the operation, queued or (behind the one it supersedes) waiting.

    Raises Conflict with code "wrong_state" (names the state and the verbs allowed now) or "busy" (names the operation).
    """
    for _ in range(TRIES):
        try:
            return _begin_once(verb, subject, requested_by, params or {}, account)
        except _Overtaken as overtaken:
            again = overtaken
    raise again


def begin_at_birth(verb: Verb, subject: Any, *, requested_by: str, params: dict[str, Any] | None = None) -> Operation:
    """Begin the first operation of a row that the caller's transaction has just made, with all that its plan moves.

    Nobody else can hold or change what nobody else can see yet, so nothing is looked at, locked or refused.
    """
    operation = _asked(verb, subject, requested_by, params or {}, None)
    operation.save(force_insert=True)
    verb.on_begin(subject, operation)
    plan = verb.plan(subject, operation.params)
    OperationSubject.objects.bulk_create(
        OperationSubject(operation=operation, kind=row.KIND, uid=row.uid, hold=Hold.OPEN)
        for row in (subject, *plan.also)
    )
    note_of(operation, "requested", f"{requested_by} asked for {verb.name} of {subject.uid}")
    first, *_ = steps = _steps(operation, plan)
    first.state, first.queued_at, first.rung_at = StepState.QUEUED, operation.created_at, operation.created_at
    operation.steps_in_order = Step.objects.bulk_create(steps)
    move(first.moves)
    begun = {uid: state for _, uid, state in first.moves}
    for row in (subject, *plan.also):
        row.state = begun.get(row.uid, row.state)
    _ring_on_commit(bell_of(first))
    return operation


class _Overtaken(Conflict):
    """Who holds the subject changed while we looked: look again."""

    def __init__(self, subject: Any) -> None:
        super().__init__(f"{subject.uid} changes hands just now; try again.", code="busy", state=subject.state)


def _begin_once(verb: Verb, subject: Any, requested_by: str, params: dict[str, Any], account: Any) -> Operation:
    operation = _asked(verb, subject, requested_by, params, account)
    with transaction.atomic():
        holder = holder_of(subject.uid)
        supersedes = holder is not None and verb.supersedes(operation.params, holder.verb)
        if supersedes:
            holder = locked(holder.pk)  # locks are taken in one order everywhere: operation, hold, subject
            if holder.ended_at is not None:
                raise _Overtaken(subject)
        if holder is None:
            _begin_now(operation, verb, subject)
        elif supersedes:
            _wait_behind(operation, holder, verb, subject)
        else:
            raise _busy(subject, holder)
    subject.refresh_from_db()
    operation.refresh_from_db()
    return operation


def _asked(verb: Verb, subject: Any, requested_by: str, params: dict[str, Any], account: Any) -> Operation:
    return Operation(
        account=account or getattr(subject, "account", None),
        verb=verb.full_name,
        subject_kind=subject.KIND,
        subject_uid=subject.uid,
        params=params,
        requested_by=requested_by,
        request_id=logs.request_id(),
        began_in=subject.state,
    )


def holder_of(uid: str) -> Operation | None:
    """The operation that holds this subject now."""
    held = OperationSubject.objects.filter(uid=uid, hold=Hold.OPEN).select_related("operation").first()
    return held.operation if held else None


def _begin_now(operation: Operation, verb: Verb, subject: Any) -> None:
    operation.save(force_insert=True)
    if not _held(operation, subject, Hold.OPEN):
        raise _Overtaken(subject)
    row = type(subject).objects.select_for_update().get(pk=subject.pk)
    if row.state not in verb.frm:
        raise _wrong_state(row, verb, f"{row.uid} is {row.state}")
    if row.state != operation.began_in:  # the caller had read it earlier
        operation.began_in = row.state
        operation.save(update_fields=["began_in"])
    asked = f"{operation.requested_by} asked for {verb.name} of {row.uid}"
    if verb.resumes:
        verb = _resume(operation, row, verb)
        asked = f"{asked}: {verb.name} goes on where {operation.resumes} stopped"
    verb.on_begin(row, operation)
    note_of(operation, "requested", asked)
    _activate(operation, verb, row)


def _resume(operation: Operation, row: Any, verb: Verb) -> Verb:
    """Make `operation` go on with the one that left `row` in error: its verb, asked with the same words."""
    stopped = resuming.stopped_operation(row)
    if stopped is None:
        raise _wrong_state(row, verb, f"no operation is known that left {row.uid} in {row.state}")
    operation.verb, operation.params, operation.resumes = stopped.verb, stopped.params, stopped.uid
    operation.save(update_fields=["verb", "params", "resumes"])
    return register.verb_named(stopped.verb)


def _wait_behind(operation: Operation, open_one: Operation, verb: Verb, row: Any) -> None:
    operation.state = OperationState.WAITING
    operation.began_in = ""  # it will begin wherever the other one stops
    operation.save(force_insert=True)
    if not _held(operation, row, Hold.WAITING):
        raise _busy_with_holder(row, Hold.WAITING)
    verb.on_begin(row, operation)
    note_of(operation, "requested", f"{operation.requested_by} asked for {verb.name} of {row.uid}")
    cancel(open_one, reason=f"superseded by {operation.uid} ({verb.name})", superseded_by=operation.uid)


def _activate(operation: Operation, verb: Verb, row: Any) -> None:
    """Take the subjects, write the steps, queue the first."""
    plan: Plan = verb.plan(row, operation.params)
    for subject in plan.also:
        _hold(operation, subject)
    steps = _steps(operation, plan)
    carried = resuming.carry_over(operation, steps)
    Step.objects.bulk_create(steps)
    for step in carried:  # their subjects come to where these steps had left them
        move(step.moves)
        settle(step.settles)
    if operation.state == OperationState.WAITING:
        operation.state = OperationState.QUEUED
        operation.save(update_fields=["state"])
    _ring_on_commit(advance(operation))


def _steps(operation: Operation, plan: Plan) -> list[Step]:
    return [
        Step(
            operation=operation,
            position=position,
            task=planned.task,
            node=planned.node,
            lane=planned.lane,
            params=planned.params,
            moves=planned.moves,
            settles=planned.settles,
            retries_left=planned.retries,
            idle_timeout_s=planned.idle_timeout_s,
            deadline_s=planned.deadline_s,
        )
        for position, planned in enumerate(plan.steps, start=1)
    ]


def _hold(operation: Operation, subject: Any) -> None:
    if not _held(operation, subject, Hold.OPEN):
        raise _busy_with_holder(subject, Hold.OPEN)


def _held(operation: Operation, subject: Any, hold: Hold) -> bool:
    """Take the subject for the operation; False: another one has it."""
    try:
        with transaction.atomic():
            OperationSubject.objects.create(operation=operation, kind=subject.KIND, uid=subject.uid, hold=hold)
    except IntegrityError:
        return False
    return True


def _busy_with_holder(subject: Any, hold: Hold) -> Conflict:
    holder = OperationSubject.objects.filter(uid=subject.uid, hold=hold).select_related("operation").first()
    return _busy(subject, holder.operation) if holder else _Overtaken(subject)


def _ring_on_commit(bell: Bell | None) -> None:
    if bell is not None:
        transaction.on_commit(lambda: ring(*bell), robust=True)  # a lambda: Django asks a failed hook for its name


def _busy(row: Any, operation: Operation) -> Conflict:
    return Conflict(
        f"{row.uid} is busy with {operation.uid} ({operation.verb.partition('.')[2]}); wait for it to end.",
        code="busy",
        operation=operation.uid,
        state=row.state,
        allowed_verbs=allowed_verbs(row, operation),
    )


def _wrong_state(row: Any, verb: Verb, why: str) -> Conflict:
    allowed = allowed_verbs(row, None)
    now = f"allowed now: {', '.join(allowed)}" if allowed else "nothing can be done with it any more"
    return Conflict(
        f"{verb.name} is not possible while {why}; {now}.",
        code="wrong_state",
        state=row.state,
        allowed_verbs=allowed,
    )


def allowed_verbs(row: Any, open_operation: Operation | None) -> list[str]:
    """The offered verbs that would be taken now; while busy, those that can supersede (poweroff: with force)."""
    verbs = register.nouns[row.KIND].verbs.values() if row.KIND in register.nouns else ()
    if open_operation is not None:
        waits = open_operation.state == OperationState.WAITING or open_operation.superseded_by
        return (
            []
            if waits
            else [verb.name for verb in verbs if verb.offered and verb.supersedes({"force": True}, open_operation.verb)]
        )
    return [verb.name for verb in verbs if verb.offered and row.state in verb.frm and _can_begin(verb, row)]


def _can_begin(verb: Verb, row: Any) -> bool:
    return not verb.resumes or bool((row.error or {}).get("operation"))


# --- advance ---------------------------------------------------------------------------------------------------


def locked(operation_id: int) -> Operation:
    """The operation under its row lock; `db_now` is the database's time."""
    return Operation.objects.select_for_update().annotate(db_now=Now()).get(pk=operation_id)


def advance(operation: Operation, *, steps: list[Step] | None = None) -> Bell | None:
    """Queue the next step, or end the operation. Returns the bell to ring, if there is one.

    The caller holds the operation's row lock and no step of it is claimed or queued. `steps`: those that count, in
    order, where the caller knows them.
    """
    steps = steps if steps is not None else list(Step.objects.filter(operation=operation).order_by("position"))
    if operation.ending:
        return _advance_undo(operation, steps)
    if operation.cancel_reason and not _is_too_late(operation, steps):
        return end(operation, OperationState.CANCELLED, steps=steps)
    blocked = next((step for step in steps if step.state == StepState.BLOCKED), None)
    if blocked is None:
        return _finish(operation, OperationState.DONE)
    return _queue(blocked)


def _is_too_late(operation: Operation, steps: list[Step]) -> bool:
    """To cancel: all is done, and nothing of it can be undone."""
    return all(step.state == StepState.DONE and not _goes(step, OperationState.CANCELLED, operation) for step in steps)


def _advance_undo(operation: Operation, steps: list[Step]) -> Bell | None:
    """Undo the newest that must go. What is whole stays once something that may stand on it could not be undone."""
    for step in reversed(steps):
        if step.state != StepState.UNDOING:
            continue
        if not (operation.held and register.tasks[step.task].whole):
            return _queue_undo(step)
        _keep(operation, step)
    return _finish(operation, operation.ending)


def hold(operation: Operation, step: Step) -> None:
    """Say that the step could not be undone; what it had settled is in error, for nobody knows how much is there."""
    operation.held.append(f"{step.task} could not be undone: {step.error['message']}")
    for kind, uid, _ in step.settles:
        error = {**step.error, "operation": operation.uid}
        register.nouns[kind].model.objects.filter(uid=uid).update(state=ERROR, error=error)


def _keep(operation: Operation, step: Step) -> None:
    state = StepState.DONE if step.was_done else StepState.CANCELLED
    Step.objects.filter(pk=step.pk).update(state=state, ended_at=Now())
    operation.held.append(f"{step.task} was left as it is, for what came after it could not be undone")
    operation.save(update_fields=["held"])


def _queue(step: Step) -> Bell:
    move(step.moves)
    Step.objects.filter(pk=step.pk, state=StepState.BLOCKED).update(
        state=StepState.QUEUED, queued_at=Now(), rung_at=Now()
    )
    return bell_of(step)


def _queue_undo(step: Step) -> Bell:
    Step.objects.filter(pk=step.pk).update(queued_at=Now(), rung_at=Now(), rings=0)
    return bell_of(step)


def bell_of(step: Step) -> Bell:
    return step.pk, step.attempt, step.task, step.node, step.lane


def move(states: list[list[str]]) -> None:
    """Put subjects into the states of a step's table; the open operation is what keeps others away."""
    for kind, uid, state in states:
        register.nouns[kind].model.objects.filter(uid=uid).update(state=state)


def settle(states: list[list[str]]) -> None:
    """Put subjects into the settled states of a step's table: an error of theirs is over."""
    for kind, uid, state in states:
        register.nouns[kind].model.objects.filter(uid=uid).update(state=state, error=None)


def end(
    operation: Operation, ending: str, *, error: dict[str, Any] | None = None, steps: list[Step] | None = None
) -> Bell | None:
    """Turn towards `failed` or `cancelled`: nothing further begins, what must go is undone, newest first.

    Failed: undo what is not whole. Cancelled: undo all. Superseded: undo nothing, the successor takes it over.
    """
    steps = steps if steps is not None else list(Step.objects.filter(operation=operation).order_by("position"))
    operation.ending = ending
    operation.error = error
    operation.save(update_fields=["ending", "error"])
    Step.objects.filter(operation=operation, state__in=[StepState.BLOCKED, StepState.QUEUED]).update(
        state=StepState.CANCELLED, ended_at=Now()
    )
    undo = [] if operation.superseded_by else [step.pk for step in steps if _goes(step, ending, operation)]
    Step.objects.filter(pk__in=undo).update(
        state=StepState.UNDOING,
        attempt=F("attempt") + 1,
        worker="",
        lease_until=None,
        queued_at=None,
        not_before=None,
        ended_at=None,
        losses=0,
        retries_left=UNDO_RETRIES,
    )
    return advance(operation)


def _goes(step: Step, ending: str, operation: Operation) -> bool:
    task = register.tasks.get(step.task)
    if task is None or task.undo is None:
        return False
    if ending == OperationState.CANCELLED:  # what it has not begun itself may stand there from the one that it resumes
        return bool(step.claimed_at or operation.resumes)
    return bool(step.claimed_at) and not task.whole


def _finish(operation: Operation, state: str) -> Bell | None:
    operation.state = state
    became = _settle_subjects(operation)
    let_go(operation, _last_words(operation, became))
    _begin_successor(operation)
    return None


def _settle_subjects(operation: Operation) -> str | None:
    """Put the main subject, and those beside it, into the states of the end; returns its own, None: it is gone."""
    verb = register.verb_named(operation.verb)
    rows = register.nouns[operation.subject_kind].model.objects.filter(uid=operation.subject_uid)
    if operation.state == OperationState.DONE and verb.ends_quietly:
        return verb.to if claim(rows, state=verb.to, error=None) else None
    row = rows.select_for_update().first()
    if row is None:
        return None
    if operation.state == OperationState.DONE:
        row.state, row.error = verb.to, None
    elif not operation.superseded_by:
        if _never_began(operation, row):
            row.state = operation.began_in
        else:
            row.state = verb.failed_to if operation.state == OperationState.FAILED else verb.cancelled_to
            if operation.held:  # not all could be undone: nobody may take it for what it was before
                row.state = ERROR
            row.error = _reason(operation, row)
        _give_up_others(operation, row)
    row.save(update_fields=["state", "error"])
    verb.on_end(row, operation)
    if operation.state != OperationState.DONE:
        verb.on_stopped(row, operation)
    return row.state


def _never_began(operation: Operation, row: Any) -> bool:
    """Cancelled before its first step was claimed: the subject is what it was, if it was anything settled."""
    return (
        operation.state == OperationState.CANCELLED
        and operation.began_in not in (*type(row).MOVING, "")
        and not operation.steps.filter(claimed_at__isnull=False).exists()
    )


def _reason(operation: Operation, row: Any) -> dict[str, Any] | None:
    """Why the subject is not what it was asked to be; None when it was cancelled and nothing is left of that."""
    if operation.error:
        return {**operation.error, "operation": operation.uid}
    return _cancelled(operation, row.KIND) if row.state == ERROR else None


def _cancelled(operation: Operation, kind: str) -> dict[str, Any]:
    """What a subject of this kind says that a cancel left in error."""
    what = operation.verb.partition(".")[2]
    possible = [verb.name for verb in register.nouns[kind].verbs.values() if verb.offered and ERROR in verb.frm]
    return {
        "class": "Cancelled",
        "message": "; ".join([f"{what} was cancelled: {operation.cancel_reason}", *operation.held]),
        "advice": f"Possible now: {', '.join(possible)}." if possible else "Begin anew what is still wanted.",
        "step": "",
        "place": "",
        "operation": operation.uid,
    }


def _give_up_others(operation: Operation, main: Any) -> None:
    """Subjects beside the main one that are still moving end in error, with its reason if it has one."""
    for subject in operation.subjects.filter(hold=Hold.OPEN).exclude(uid=main.uid):
        model = register.nouns[subject.kind].model
        error = main.error or _cancelled(operation, subject.kind)
        model.objects.filter(uid=subject.uid, state__in=model.MOVING).update(state=ERROR, error=error)


def _last_words(operation: Operation, became: str | None) -> str:
    if operation.state == OperationState.CANCELLED:
        return f"cancelled: {operation.cancel_reason}"
    now = f"{operation.subject_uid} is {became or 'not known any more'}"
    if operation.state == OperationState.DONE:
        return now
    return f"{now}: {(operation.error or {}).get('message', 'no reason was given')}"


def _begin_successor(operation: Operation) -> None:
    waiting = Operation.objects.filter(uid=operation.superseded_by).first() if operation.superseded_by else None
    if waiting is None:
        return
    successor = locked(waiting.pk)
    if successor.state != OperationState.WAITING:
        return
    verb = register.verb_named(successor.verb)
    OperationSubject.objects.filter(operation=successor, hold=Hold.WAITING).update(hold=Hold.OPEN)
    try:
        with transaction.atomic():
            row = register.nouns[successor.subject_kind].model.objects.get(uid=successor.subject_uid)
            _activate(successor, verb, row)
    except DATABASE_ERRORS:
        raise
    except Exception as exc:  # the end of the one before must be written all the same
        log.exception("an operation could not begin", operation=successor.uid)
        successor.error = told(foreseen(exc), step="")
        successor.save(update_fields=["error"])
        _finish(successor, OperationState.FAILED)


# --- cancel, observe -------------------------------------------------------------------------------------------


def cancel(operation: Operation, *, reason: str, superseded_by: str = "") -> bool:
    """Ask an operation to end: a running step stops at its next safe point, a queued one never begins.

    False: it has ended already, nothing changes. Asking twice changes nothing either.
    """
    with transaction.atomic():
        before = _predecessor(operation) if operation.state == OperationState.WAITING else None
        operation = locked(operation.pk)
        if operation.ended_at is not None:
            return False
        if operation.cancel_reason and not superseded_by:
            return True
        operation.cancel_reason = operation.cancel_reason or reason[:MOST_REASON]
        operation.superseded_by = superseded_by or operation.superseded_by
        operation.save(update_fields=["cancel_reason", "superseded_by"])
        note_of(operation, "cancel", f"asked to stop: {reason}")
        if operation.state == OperationState.WAITING:
            _withdraw(operation, before)
            return True
        in_hand = Step.objects.filter(operation=operation, state__in=[StepState.RUNNING, StepState.UNDOING])
        if not operation.ending and not in_hand.exclude(worker="").exists():
            _ring_on_commit(advance(operation))  # else the end of that step sees the reason
        return True


def _predecessor(operation: Operation) -> Operation | None:
    """The open operation that this one supersedes, under its lock: taken in the order of their ends."""
    return Operation.objects.select_for_update().filter(superseded_by=operation.uid, ended_at=None).first()


def _withdraw(operation: Operation, before: Operation | None) -> None:
    """It had not begun: its subject stays with the one that it waited for, which ends now for itself."""
    if before is not None:
        Operation.objects.filter(pk=before.pk).update(superseded_by="")
    operation.state = OperationState.CANCELLED
    let_go(operation, _last_words(operation, None))


def observed(row: Any, state: str, *, frm: frozenset[str], evidence: str) -> bool:
    """Settle what happened without us, if `row` is in one of `frm` and no operation is open on it.

    While an operation is open, the observation is evidence in its story and changes nothing.
    """
    with transaction.atomic():
        model = type(row)
        current = model.objects.select_for_update().get(pk=row.pk)
        holder = holder_of(row.uid)
        operation_uid = holder.uid if holder else ""
        account_id = getattr(current, "account_id", None)
        changed = holder is None and claim(model.objects.filter(pk=row.pk, state__in=frm), state=state)
        if changed:
            evidence = f"{evidence}; no operation had asked for it"
        if changed or holder is not None:
            note(
                row.KIND, row.uid, f"{row.KIND}.observed", evidence, account_id=account_id, operation_uid=operation_uid
            )
    return changed
