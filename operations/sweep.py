"""The loop that lets nothing hang: rings bells again, takes steps from lost workers, runs chores.

It runs in a process of its own, never as a task, for it must not hang on what it guards. Two may run; the one that
holds the advisory lock works. Time in which the database did not answer counts for nothing: leases are judged only
after one full lease of good rounds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from django.db import connection
from django.db.models.functions import Now

from core.database import DATABASE_ERRORS, unreachable
from operations import canary, evidence, giving_up, tally, timing
from operations.alone import alone
from operations.answering import Answering
from operations.models import Step
from operations.pruning import PRUNE_EVERY_S, prune
from operations.recovery import lose
from operations.ringing import overdue, ring_missing

log = structlog.get_logger()

ADVISORY_LOCK = 0x76646373  # "vdcs"


@dataclass(slots=True)
class Chore:
    """Something another room wants done every `every_s` seconds, with all outages left out."""

    name: str
    every_s: float
    work: Callable[[float], None]  # told for how many seconds the database has been answering
    last_at: float = 0.0


chores: list[Chore] = [
    Chore("canaries", canary.EVERY_S, canary.send),
    Chore("tallies", tally.EVERY_S, tally.count_ended),
    Chore("prune", PRUNE_EVERY_S, prune),
    Chore("cancels where nobody works", giving_up.LOOK_EVERY_S, giving_up.give_up),
    Chore("steps past their deadline", evidence.LOOK_EVERY_S, evidence.settle_by_evidence),
]


def sweep(stop: threading.Event) -> None:
    """Work until `stop` is set."""
    answering = Answering()
    while not stop.wait(timing.SWEEP_TICK_S):
        try:
            if _is_the_one():
                good_for_s = answering.for_s()
                if good_for_s == 0:
                    log.info("the sweep has the lock and the database answers")
                _round(good_for_s)
            else:
                answering.interrupted()
        except DATABASE_ERRORS as exc:
            if not unreachable(exc):
                raise
            log.warning("the database did not answer; this time counts for nothing", error=str(exc).strip())
            answering.interrupted()
            connection.close()


def _is_the_one() -> bool:
    """Take the advisory lock, or find that this session has it already. It goes with the session."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_locks"
            " WHERE locktype = 'advisory' AND objid = %s AND pid = pg_backend_pid() AND granted)",
            [ADVISORY_LOCK],
        )
        if cursor.fetchone()[0]:
            return True
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [ADVISORY_LOCK])
        return cursor.fetchone()[0]


def _round(good_for_s: float) -> None:
    if good_for_s > timing.LEASE_S:
        take_from_lost_workers()
    for chore in chores:
        if time.monotonic() - chore.last_at >= chore.every_s:
            chore.last_at = time.monotonic()
            alone(chore.name, lambda work=chore.work: work(good_for_s))
    ring_again()  # last: it may have to wait for Redis


def ring_again() -> None:
    """Ring for steps whose pause is over or whose bell was not answered."""
    ring_missing(overdue())


def take_from_lost_workers() -> None:
    """Queue the next attempt of steps whose lease ran out while the database could have renewed it."""
    for step in Step.objects.filter(ended_at=None, lease_until__lt=Now()).exclude(worker=""):
        why = f"no sign of life from its worker {step.worker} since {step.lease_until:%H:%M:%S} UTC"
        alone(f"lost step {step.pk}", lambda step=step, why=why: _expire(step, why))


def _expire(step: Step, why: str) -> None:
    if lose(step, why):
        tally.count(tally.LEASE_EXPIRIES, step.task)
