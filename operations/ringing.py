"""Ring again for steps that wait: what the sweep does for all lanes, and a lane that starts does for itself."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import structlog
from django.db.models import Case, DurationField, ExpressionWrapper, F, Q, QuerySet, Value, When
from django.db.models.functions import Least, Now, Power

from core.errors import Unreachable
from operations import timing
from operations.bell import queue_lengths, ring
from operations.models import Step

log = structlog.get_logger()

MOST_DOUBLINGS = 10  # of the pause between rings; more would overflow after days
PAUSE_IS_OVER = Q(rung_at__lt=F("not_before"))


def waiting() -> QuerySet[Step]:
    """Steps that anyone may claim now."""
    return Step.objects.filter(ended_at=None, worker="", queued_at__isnull=False).exclude(not_before__gt=Now())


def overdue() -> QuerySet[Step]:
    """Those of them whose pause has just ended, or whose last bell has gone unanswered for 10, 20, 40 … 300 s."""
    first, last = timedelta(seconds=timing.FIRST_RING_S), timedelta(seconds=timing.LAST_RING_S)
    doubled = Value(first) * Power(2.0, Least(F("rings"), MOST_DOUBLINGS))
    patience = Least(
        ExpressionWrapper(doubled, output_field=DurationField()),
        Value(last, output_field=DurationField()),
        output_field=DurationField(),
    )
    return waiting().filter(Q(rung_at=None) | PAUSE_IS_OVER | Q(rung_at__lte=Now() - patience))


def ring_missing(due: QuerySet[Step]) -> None:
    """Ring for these steps where fewer bells lie in the lane's list than steps wait for it."""
    bells = list(due.order_by("queued_at").values_list("pk", "attempt", "task", "node", "lane"))
    if not bells:
        return
    steps = Counter(waiting().values_list("node", "lane"))
    try:
        rung = queue_lengths({(node, lane) for *_, node, lane in bells})
    except Unreachable as away:
        log.warning("the bells are rung when Redis is back", why=away.message)
        return
    missing = [bell for bell in bells if rung[bell[3:]] < steps[bell[3:]]]
    Step.objects.filter(pk__in=[bell[0] for bell in missing]).update(
        rung_at=Now(), rings=Case(When(PAUSE_IS_OVER, then=F("rings")), default=F("rings") + 1)
    )
    for bell in missing:
        ring(*bell)
