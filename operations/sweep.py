"""The loop that lets nothing hang: rings bells again, takes steps from lost workers, runs chores.

It runs in a process of its own, never as a task, for it must not hang on what it guards. Two may run; the one that
holds the advisory lock works. Time in which the database did not answer counts for nothing: leases are judged only
after one full lease of good rounds.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from django.db import DatabaseError, InterfaceError, connection
from django.db.models.functions import Now
from redis.exceptions import RedisError

from core.database import unreachable
from operations import timing
from operations.bell import queue_length, ring
from operations.models import Event, Operation, Step
from operations.recovery import lose

log = structlog.get_logger()

ADVISORY_LOCK = 0x76646373  # "vdcs"
PRUNE_EVERY_S = 24 * 3600.0
PRUNE_AT_ONCE = 1000


@dataclass(slots=True)
class Chore:
    """Something another room wants done every `every_s` seconds, with all outages left out."""

    name: str
    every_s: float
    work: Callable[[float], None]  # told for how many seconds the database has been answering
    last_at: float = 0.0


chores: list[Chore] = []


def sweep(stop: threading.Event) -> None:
    """Work until `stop` is set."""
    good_since: float | None = None
    while not stop.wait(timing.SWEEP_TICK_S):
        try:
            if not _is_the_one():
                good_since = None
                continue
            if good_since is None:
                good_since = time.monotonic()
                log.info("the sweep has the lock and the database answers")
            _round(time.monotonic() - good_since)
        except (DatabaseError, InterfaceError) as exc:
            if not unreachable(exc):
                raise
            log.warning("the database did not answer; this time counts for nothing", error=str(exc).strip())
            good_since = None
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
    ring_again()
    if good_for_s > timing.LEASE_S:
        take_from_lost_workers()
    for chore in chores:
        if time.monotonic() - chore.last_at >= chore.every_s:
            chore.last_at = time.monotonic()
            chore.work(good_for_s)


def ring_again() -> None:
    """Ring for steps whose pause is over or whose bell was not answered, where fewer bells than steps wait."""
    waiting = Step.objects.filter(ended_at=None, worker="", queued_at__isnull=False).annotate(now=Now())
    lanes: dict[tuple[str, str], list[Step]] = defaultdict(list)
    for step in waiting.order_by("queued_at"):
        lanes[step.node, step.lane].append(step)
    for (node, lane), steps in lanes.items():
        due = [step for step in steps if _is_due(step)]
        if due and _bells_are_missing(node, lane, len(steps)):
            Step.objects.bulk_update(due, ["rung_at", "rings"])
            for step in due:
                ring(step.pk, step.attempt, step.task, node, lane)


def _is_due(step: Step) -> bool:
    """Decides, and notes the new ring on the step."""
    if step.not_before is not None and step.not_before > step.now:
        return False
    fresh = step.not_before is not None and (step.rung_at is None or step.rung_at < step.not_before)
    patience_s = min(timing.FIRST_RING_S * 2**step.rings, timing.LAST_RING_S)
    if not fresh and step.rung_at is not None and (step.now - step.rung_at).total_seconds() < patience_s:
        return False
    step.rung_at = step.now
    step.rings += 0 if fresh else 1
    return True


def _bells_are_missing(node: str, lane: str, steps: int) -> bool:
    try:
        return queue_length(node, lane) < steps
    except (RedisError, OSError) as exc:
        log.warning("Redis cannot be asked; the bells are rung when it can", error=str(exc))
        return False


def take_from_lost_workers() -> None:
    """Queue the next attempt of steps whose lease ran out while the database could have renewed it."""
    for step in Step.objects.filter(ended_at=None, lease_until__lt=Now()).exclude(worker=""):
        lose(step, f"no sign of life from its worker {step.worker} since {step.lease_until:%H:%M:%S} UTC")


def prune(good_for_s: float) -> None:
    """Steps and events of operations that ended long ago go; the operation stays as their summary."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT now() - make_interval(days => %s)", [timing.KEEP_FINISHED_DAYS])
        before = cursor.fetchone()[0]
    old = Operation.objects.filter(ended_at__lt=before).values("pk")
    gone = Step.objects.filter(operation__in=old).order_by("pk").values("pk")[:PRUNE_AT_ONCE]
    while Step.objects.filter(pk__in=list(gone.values_list("pk", flat=True))).delete()[0]:
        pass
    Event.objects.filter(created_at__lt=before).delete()


chores.append(Chore("prune", PRUNE_EVERY_S, prune))
