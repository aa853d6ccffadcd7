"""The thread that keeps the claims of a worker process alive, and hears when work should stop.

One statement a tick for all running steps: renew leases, write progress and new log lines, read back who lost its
claim or was cancelled. Between two ticks it asks a few times who was cancelled, for people wait for that. A database
that does not answer changes nothing here: no deadline counts such time, nor does the sweep.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from django.db import close_old_connections, connection, transaction

from core.database import DATABASE_ERRORS
from core.errors import Cancelled, Fenced, Transient
from operations import timing
from operations.run import StepRun, Stopping

log = structlog.get_logger()

_RENEW = """
    UPDATE operations_step AS step
       SET lease_until = now() + make_interval(secs => %s),
           progress_done = seen.done, progress_total = seen.total, progress_unit = seen.unit,
           log = COALESCE(seen.log, step.log)
      FROM unnest(%s::bigint[], %s::int[], %s::bigint[], %s::bigint[], %s::text[], %s::text[])
           AS seen(id, attempt, done, total, unit, log),
           operations_operation AS operation
     WHERE step.id = seen.id AND step.attempt = seen.attempt AND step.state IN ('running', 'undoing')
       AND operation.id = step.operation_id
 RETURNING step.id, step.attempt, operation.cancel_reason
"""

_CANCELLED = """
    SELECT step.id, step.attempt, operation.cancel_reason
      FROM operations_step AS step JOIN operations_operation AS operation ON operation.id = step.operation_id
     WHERE step.id = ANY(%s) AND operation.cancel_reason <> ''
"""


class Keeper:
    """Runs its thread only while there is something to keep."""

    def __init__(self) -> None:
        self._runs: set[StepRun] = set()  # a fenced attempt may still be at it beside its successor
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    @contextmanager
    def keeping(self, run: StepRun) -> Iterator[None]:
        """Keep the claim of `run` from here to the end of the block."""
        with self._lock:
            self._runs.add(run)
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep_while_needed, name="keeper", daemon=True)
                self._thread.start()
        if self._stopping.is_set():
            run.stop(Stopping("the worker goes down"))
        try:
            yield
        finally:
            with self._lock:
                self._runs.discard(run)

    def stop_all(self) -> None:
        """The process was asked to end: every run stops at its next safe point and is handed back."""
        self._stopping.set()
        with self._lock:
            runs = list(self._runs)
        for run in runs:
            run.stop(Stopping("the worker goes down"))

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def _keep_while_needed(self) -> None:
        try:
            self._keep()
        finally:  # after a defect, too: the next step starts a new thread
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None
            connection.close()

    def _keep(self) -> None:
        lives: dict[StepRun, _Life] = {}
        ticked_at = time.monotonic()
        answering = True
        while True:
            answering = self._listen_until(ticked_at + timing.KEEPER_TICK_S) and answering
            with self._lock:
                runs = list(self._runs)
                if not runs:
                    self._thread = None
                    return
            passed_s, ticked_at = time.monotonic() - ticked_at, time.monotonic()
            lives = {run: lives.get(run) or _Life(run) for run in runs}
            for run, life in lives.items():
                life.judge(run, passed_s if answering else 0)
            try:
                _renew(runs)
                answering = True
            except DATABASE_ERRORS as exc:
                log.warning("leases could not be renewed; work goes on", error=str(exc).strip())
                answering = False
                connection.close()

    def _listen_until(self, moment: float) -> bool:
        """Let the work hear of a cancel, every now and then until `moment`; short steps cost no statement.

        False: the database did not answer meanwhile; the next tick says so.
        """
        seen: set[StepRun] = set()
        while (left_s := moment - time.monotonic()) > 0:
            time.sleep(min(left_s, timing.HEAR_EVERY_S))
            with self._lock:
                runs = {run for run in self._runs if not run.undoing}
            if still_at_it := runs & seen:
                try:
                    _hear(still_at_it)
                except DATABASE_ERRORS:
                    connection.close()
                    return False
            seen = runs
        return True


class _Life:
    """For how long a run has been at it, and for how long it has not moved; outages are left out."""

    def __init__(self, run: StepRun) -> None:
        self.age_s = self.idle_s = 0.0
        self.moved = run.moved

    def judge(self, run: StepRun, passed_s: float) -> None:
        self.age_s += passed_s
        self.idle_s = self.idle_s + passed_s if run.moved == self.moved else 0.0
        self.moved = run.moved
        idle_s, limit_s = (limit and limit * timing.SCALE for limit in (run.step.idle_timeout_s, run.step.deadline_s))
        if idle_s and self.idle_s > idle_s:
            run.stop(Transient(f"{run.step.task} made no progress for {idle_s:g} s"))
        elif limit_s and self.age_s > limit_s:
            run.stop(Transient(f"{run.step.task} took longer than its deadline of {limit_s:g} s"))


def _hear(runs: set[StepRun]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_CANCELLED, [[run.step.pk for run in runs]])
        reasons = {(step_id, attempt): reason for step_id, attempt, reason in cursor.fetchall()}
    for run in runs:
        if reason := reasons.get((run.step.pk, run.step.attempt)):
            run.stop(Cancelled(reason))


def _renew(runs: list[StepRun]) -> None:
    close_old_connections()
    logs = [run.log.unsaved() for run in runs]
    columns = (
        [run.step.pk for run in runs],
        [run.step.attempt for run in runs],
        [run.done for run in runs],
        [run.total for run in runs],
        [run.unit for run in runs],
        [text for _, text in logs],
    )
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")  # a lost renewal is renewed again
        cursor.execute(_RENEW, [timing.LEASE_S, *columns])
        kept = {(step_id, attempt): cancel_reason for step_id, attempt, cancel_reason in cursor.fetchall()}
    for run, (version, _) in zip(runs, logs, strict=True):
        run.log.saved(version)
        cancel_reason = kept.get((run.step.pk, run.step.attempt))
        if cancel_reason is None:
            run.stop(Fenced(f"attempt {run.step.attempt} of {run.step.task} was given to someone else"))
        elif cancel_reason and not run.undoing:
            run.stop(Cancelled(cancel_reason))


keeper = Keeper()
