"""What every step and every operation costs: taking a step in hand, handing on to the next, and the end of it all.

Written as SQL, since a step must cost few statements and each must decide and write at once:

    lock       the operation's row, which every change of it and of its steps begins with
    take       queued ──► running (or undoing, for an undo), if it waits for exactly this attempt
    hand_on    running ──► done, if it is still this attempt's; and the next one blocked ──► queued,
               or at once ──► running, when the worker goes on with it
    let_go     the operation ends: its subjects are free, and an event says so
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.db import connection

from operations import timing
from operations.models import Operation, Step
from operations.states import StepState

NEVER_CHANGES = [
    "id", "uid", "account_id", "verb", "subject_kind", "subject_uid", "params", "requested_by", "request_id", "resumes",
]  # fmt: skip

_LOCK = """
    SELECT state, ending, cancel_reason, superseded_by, error, undone, held, started_at, ended_at, statement_timestamp()
      FROM operations_operation WHERE id = %s FOR UPDATE
"""

# The operation's lock first, as everywhere: a cancel sees the step either queued or in hand.
_TAKE = """
    WITH operation AS (
        SELECT * FROM operations_operation
         WHERE id = (SELECT operation_id FROM operations_step WHERE id = %(step)s)
           FOR UPDATE
    ), taken AS (
        UPDATE operations_step AS step
           SET state = CASE step.state WHEN 'queued' THEN 'running' ELSE step.state END,
               worker = %(worker)s,
               claimed_at = statement_timestamp(),
               started_at = COALESCE(step.started_at, statement_timestamp()),
               lease_until = statement_timestamp() + %(lease)s
          FROM operation
         WHERE step.id = %(step)s AND step.operation_id = operation.id
           AND step.attempt = %(attempt)s AND step.worker = ''
           AND (step.state = 'queued' OR step.state = 'undoing' AND step.queued_at IS NOT NULL)
     RETURNING step.*
    ), begun AS (
        UPDATE operations_operation AS operation
           SET state = 'running', started_at = statement_timestamp()
          FROM taken
         WHERE operation.id = taken.operation_id AND operation.state = 'queued'
    ), mine AS (
        SELECT * FROM taken
         UNION ALL
        SELECT * FROM operations_step
         WHERE id = %(step)s AND attempt = %(attempt)s AND worker = %(worker)s AND ended_at IS NULL
    ), from_here AS (
        SELECT * FROM mine
         UNION ALL
        SELECT later.* FROM operations_step AS later JOIN mine USING (operation_id) WHERE later.position > mine.position
    )
    SELECT from_here.*, row_to_json(operation) AS of_operation
      FROM from_here JOIN operation ON operation.id = from_here.operation_id
     ORDER BY from_here.position
"""

_HAND_ON = """
    WITH told AS (
        UPDATE operations_step
           SET state = 'done', result = %(result)s, error = NULL, ended_at = statement_timestamp(), lease_until = NULL,
               attempts = attempts || %(record)s::jsonb, commands = %(commands)s, log = %(log)s,
               progress_done = %(done)s, progress_total = %(total)s, progress_unit = %(unit)s
         WHERE id = %(step)s AND attempt = %(attempt)s AND worker = %(worker)s AND ended_at IS NULL
           AND (%(next)s::bigint IS NULL
                OR EXISTS (SELECT FROM operations_step WHERE id = %(next)s AND state = 'blocked'))
     RETURNING id
    ), handed AS (
        UPDATE operations_step AS next
           SET state = CASE %(taker)s WHEN '' THEN 'queued' ELSE 'running' END,
               queued_at = statement_timestamp(), rung_at = statement_timestamp(),
               worker = %(taker)s,
               claimed_at = CASE %(taker)s WHEN '' THEN NULL ELSE statement_timestamp() END,
               started_at = CASE %(taker)s WHEN '' THEN NULL ELSE statement_timestamp() END,
               lease_until = CASE %(taker)s WHEN '' THEN NULL ELSE statement_timestamp() + %(lease)s END
          FROM told
         WHERE next.id = %(next)s AND next.state = 'blocked'
    )
    SELECT count(*) FROM told
"""

_LET_GO = """
    WITH ended AS (
        UPDATE operations_operation SET state = %(state)s, ended_at = statement_timestamp(), held = %(held)s
         WHERE id = %(operation)s
    ), freed AS (
        UPDATE operations_operationsubject SET hold = 'closed' WHERE operation_id = %(operation)s
    )
    INSERT INTO operations_event (account_id, subject_kind, subject_uid, operation_uid, name, message)
    VALUES (%(account)s, %(kind)s, %(subject)s, %(uid)s, %(name)s, %(message)s)
"""


def lock(operation: Operation) -> None:
    """Take the operation's lock, and read again what may have changed since it was read; `db_now` is the time there.

    Raises Operation.DoesNotExist.
    """
    with connection.cursor() as cursor:
        cursor.execute(_LOCK, [operation.pk])
        found = cursor.fetchone()
    if found is None:
        raise Operation.DoesNotExist
    state, ending, cancel_reason, superseded_by, error, undone, held, started_at, ended_at, db_now = found
    operation.state, operation.ending = state, ending
    operation.cancel_reason, operation.superseded_by = cancel_reason, superseded_by
    operation.error, operation.undone, operation.held = (
        error and json.loads(error),
        json.loads(undone),
        json.loads(held),
    )
    operation.started_at, operation.ended_at, operation.db_now = started_at, ended_at, db_now


def take(step_id: int, attempt: int, worker: str) -> list[Step]:
    """Take this attempt in hand for `worker`: the step and those after it, with their operation; [] if it cannot be.

    May be asked again when the answer was lost: `worker` names one claim, not a process.
    """
    words = {"step": step_id, "attempt": attempt, "worker": worker, "lease": timedelta(seconds=timing.LEASE_S)}
    steps = list(Step.objects.raw(_TAKE, words))
    for step in steps:
        known = step.of_operation
        # What is not named here is read when somebody asks for it; what may change is read with the lock.
        step.operation = Operation.from_db(connection.alias, NEVER_CHANGES, [known[name] for name in NEVER_CHANGES])
    return steps


def hand_on(
    step: Step,
    *,
    result: dict[str, Any],
    record: dict[str, Any],
    said: dict[str, Any],
    next_step: Step | None,
    taker: str,
) -> bool:
    """End this attempt as done, and queue `next_step`, or give it to `taker` at once. False: look closer.

    Nothing is written then: the attempt is not ours any more, or `next_step` does not wait for it as it did.
    `said`: commands, log, done, total and unit, as the attempt left them. The caller holds the operation's lock.
    """
    words = {
        **said,
        "step": step.pk,
        "attempt": step.attempt,
        "worker": step.worker,
        "result": json.dumps(result),
        "record": json.dumps([record]),
        "commands": json.dumps(said["commands"]),
        "next": next_step and next_step.pk,
        "taker": taker,
        "lease": timedelta(seconds=timing.LEASE_S),
    }
    with connection.cursor() as cursor:
        cursor.execute(_HAND_ON, words)
        return cursor.fetchone()[0] == 1


def taken(step: Step, at: Any, taker: str) -> Step:
    """The step as `hand_on` has written it for `taker`."""
    step.state, step.worker = StepState.RUNNING, taker
    step.claimed_at = step.started_at = step.queued_at = at
    return step


def let_go(operation: Operation, message: str) -> None:
    """Write the end of the operation in its `state`. The caller holds its lock."""
    words = {
        "operation": operation.pk,
        "state": operation.state,
        "held": json.dumps(operation.held),
        "account": operation.account_id,
        "kind": operation.subject_kind,
        "subject": operation.subject_uid,
        "uid": operation.uid,
        "name": f"{operation.verb}.{operation.state}",
        "message": message,
    }
    with connection.cursor() as cursor:
        cursor.execute(_LET_GO, words)
