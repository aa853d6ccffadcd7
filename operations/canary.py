"""Canaries: every 30 s a bell through each lane, answered by its worker, so that the whole way is measured.

    sweep ──► row ──► bell ──► Redis ──► worker ──► row

The row is the record here too. A lane has at most one canary in its queue: the next is sent when the last was heard,
or when it cannot lie there any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import timedelta

import structlog
from celery import shared_task
from django.db import connection
from django.db.models import Case, F, Q, When
from django.db.models.functions import Coalesce, Now

from core.database import DATABASE_ERRORS, unreachable
from core.errors import Unreachable
from operations import register, timing
from operations.bell import is_heard, queue_lengths, ring
from operations.lane import THREADS
from operations.models import LaneCanary, Step
from operations.ringing import waiting

log = structlog.get_logger()

EVERY_S = 30 * timing.SCALE
TASK = "operations.canary"
CONTROL = ("", "control")

Lane = tuple[str, str]  # node, lane


@shared_task(name=TASK, ignore_result=True)
def answer(canary_id: int, number: int) -> None:
    """The worker's part: this one was heard. One that was given up meanwhile says nothing."""
    sent = LaneCanary.objects.filter(pk=canary_id, number=number, waits_since__isnull=False)
    try:
        sent.update(heard_at=Now(), waits_since=None, round_trip=Now() - F("sent_at"))
    except DATABASE_ERRORS as exc:
        if not unreachable(exc):
            raise
        log.warning("a canary was heard, but the database did not answer", error=str(exc).strip())
        connection.close()


def send(good_for_s: float) -> None:
    """The sweep's part: one bell for each lane whose last canary was heard or is lost."""
    if not is_heard():  # without this the sweep would wait for each answer that does not come
        log.warning("no canaries while Redis does not answer")
        return
    _keep_one_for_each({CONTROL}.union(*(ask() for ask in register.lanes)))
    canaries = list(LaneCanary.objects.all())
    heard = [canary for canary in canaries if canary.number and canary.waits_since is None]
    due = heard + _gone([canary for canary in canaries if canary not in heard])
    LaneCanary.objects.filter(pk__in=[canary.pk for canary in due]).update(
        number=F("number") + 1, sent_at=Now(), waits_since=Coalesce("waits_since", Now())
    )
    for canary in due:
        ring(canary.pk, canary.number + 1, TASK, canary.node, canary.lane)


def _keep_one_for_each(lanes: set[Lane]) -> None:
    """A row for each lane that is served now, and none for others: a node that is away is no deaf lane."""
    known = {(node, lane): pk for pk, node, lane in LaneCanary.objects.values_list("pk", "node", "lane")}
    if missing := lanes - known.keys():
        LaneCanary.objects.bulk_create((LaneCanary(node=node, lane=lane) for node, lane in missing))
    if gone := known.keys() - lanes:
        LaneCanary.objects.filter(pk__in=[known[lane] for lane in gone]).delete()


def _gone(unheard: list[LaneCanary]) -> list[LaneCanary]:
    """Those which are not in their queue any more: no more bells lie there than steps wait."""
    if not unheard:
        return []
    steps = Counter(waiting().values_list("node", "lane"))
    try:
        bells = queue_lengths({(canary.node, canary.lane) for canary in unheard})
    except Unreachable as away:
        log.warning("no canaries while Redis is away", why=away.message)
        return []
    return [canary for canary in unheard if bells[lane_of(canary)] <= steps[lane_of(canary)]]


def lane_of(canary: LaneCanary) -> Lane:
    return canary.node, canary.lane


def _overdue() -> Q:
    """The lane has not answered for longer than from one canary to the next."""
    return Q(waits_since__lt=Now() - timedelta(seconds=EVERY_S))


def by_node() -> dict[str, list[LaneCanary]]:
    """The canaries of each node's lanes, with `silent_since` if they are overdue. One statement."""
    found: dict[str, list[LaneCanary]] = {}
    silent_since = Case(When(_overdue(), then=F("waits_since")))
    for canary in LaneCanary.objects.annotate(silent_since=silent_since).order_by("node", "-lane"):
        found.setdefault(canary.node, []).append(canary)
    return found


def troubles(lanes: Collection[Lane]) -> dict[Lane, str]:
    """Which of these lanes do not answer although they have room to, as sentences. Full is not deaf."""
    if not lanes:
        return {}
    late = {lane_of(canary): canary for canary in LaneCanary.objects.filter(_overdue())}
    late = {lane: late[lane] for lane in lanes if lane in late}
    if not late:
        return {}
    its_steps = Q(*(Q(node=node, lane=lane) for node, lane in late), _connector=Q.OR)
    in_hand = Counter(Step.objects.filter(its_steps, ended_at=None).exclude(worker="").values_list("node", "lane"))
    return {
        (node, lane): f"the lane {lane}{f' of node {node}' if node else ''}, "
        f"which has not answered since {canary.waits_since:%Y-%m-%d %H:%M:%S} UTC"
        for (node, lane), canary in late.items()
        if in_hand[node, lane] < THREADS[lane]
    }
