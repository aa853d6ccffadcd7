"""Let steps and events of operations that ended long ago go; the operation stays as their summary.

Ids grow with time, so the oldest rows are found by the primary key. A little is deleted often: the sweep has
more urgent things to do, and a long DELETE would meet the time limit of its statements.
"""

from __future__ import annotations

from datetime import timedelta

from django.db.models import BooleanField, Case, Value, When
from django.db.models.functions import Now

from operations import timing
from operations.models import Event, Step

PRUNE_EVERY_S = 60.0
MOST_AT_ONCE = 1000


def prune(good_for_s: float) -> None:
    """One batch of each."""
    before = Now() - timedelta(days=timing.KEEP_FINISHED_DAYS)
    _delete_old(Step, {"operation__ended_at__lt": before})
    _delete_old(Event, {"created_at__lt": before})


def _delete_old(model: type[Step | Event], condition: dict[str, object]) -> None:
    is_old = Case(When(**condition, then=Value(True)), default=Value(False), output_field=BooleanField())
    oldest = model.objects.order_by("pk").annotate(is_old=is_old).values_list("pk", "is_old")[:MOST_AT_ONCE]
    model.objects.filter(pk__in=[pk for pk, old in oldest if old]).delete()
