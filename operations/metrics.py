"""What /metrics tells of operations, steps, lanes and their canaries; all of it from rows, in a few statements."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Count, F, Min, Q
from django.db.models.functions import Greatest, Now
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from operations import tally
from operations.canary import lane_of
from operations.models import LaneCanary, Operation, Step, Tally

LANE = ["node", "lane"]  # the control lane has the node ""


def families() -> Iterator[Metric]:
    yield _ended()
    yield _open()
    yield _step_durations()
    yield _lease_expiries()
    ages = {"waits": Now() - F("waits_since"), "heard_ago": Now() - F("heard_at")}
    canaries = list(LaneCanary.objects.annotate(**ages).order_by("node", "lane"))
    yield from _lanes(canaries)
    yield from _canaries(canaries)


def _ended() -> Metric:
    family = CounterMetricFamily("vdc_operations", "Operations that ended.", labels=["verb", "outcome"])
    for labels, count in tally.counts(tally.OPERATIONS).items():
        family.add_metric(labels, count)
    return family


def _open() -> Metric:
    family = GaugeMetricFamily("vdc_operations_open", "Operations that have not ended.", labels=["verb", "state"])
    for verb, state, count in (
        Operation.objects.filter(ended_at=None).order_by().values_list("verb", "state").annotate(count=Count("id"))
    ):
        family.add_metric([verb, state], count)
    return family


def _step_durations() -> Metric:
    """Buckets are cumulated here, as Prometheus wants them."""
    family = HistogramMetricFamily(
        "vdc_step_duration_seconds",
        "Time of each attempt at a step, from its claim to its end, in operations that ended.",
        labels=["task", "outcome"],
    )
    found: dict[tuple[str, str], Counter[float]] = defaultdict(Counter)
    total: Counter[tuple[str, str]] = Counter()
    for row in Tally.objects.filter(metric=tally.STEP_SECONDS):
        found[row.first, row.second][row.le] += row.count
        total[row.first, row.second] += row.total
    for labels, counts in sorted(found.items()):
        below, buckets = 0, []
        for le in tally.BUCKETS_S:
            below += counts[le]
            buckets.append((floatToGoString(le), below))
        family.add_metric(labels, buckets, total[labels])
    return family


def _lease_expiries() -> Metric:
    family = CounterMetricFamily(
        "vdc_step_lease_expiries", "Steps taken from a worker that gave no sign of life.", labels=["task"]
    )
    for (task, _), count in tally.counts(tally.LEASE_EXPIRIES).items():
        family.add_metric([task], count)
    return family


def _lanes(canaries: list[LaneCanary]) -> Iterator[Metric]:
    may_be_claimed = Q(worker="") & (Q(not_before=None) | Q(not_before__lte=Now()))
    seen = {
        (row["node"], row["lane"]): row
        for row in Step.objects.filter(ended_at=None, queued_at__isnull=False)
        .order_by()
        .values("node", "lane")
        .annotate(
            queued=Count("id", filter=may_be_claimed),
            age=Now() - Min(Greatest("queued_at", "not_before"), filter=may_be_claimed),
            running=Count("id", filter=~Q(worker="")),
        )
    }
    nothing = {"queued": 0, "age": None, "running": 0}
    queued = GaugeMetricFamily("vdc_lane_queued_steps", "Steps that a worker of the lane may claim now.", labels=LANE)
    age = GaugeMetricFamily("vdc_lane_queue_age_seconds", "For how long the oldest of them waits.", labels=LANE)
    running = GaugeMetricFamily("vdc_lane_running_steps", "Steps that a worker of the lane has claimed.", labels=LANE)
    for lane in sorted({lane_of(canary) for canary in canaries} | seen.keys()):
        row = seen.get(lane, nothing)
        queued.add_metric(lane, row["queued"])
        age.add_metric(lane, (row["age"] or timedelta()).total_seconds())
        running.add_metric(lane, row["running"])
    yield from (queued, age, running)


def _canaries(canaries: list[LaneCanary]) -> Iterator[Metric]:
    way = GaugeMetricFamily(
        "vdc_canary_round_trip_seconds",
        "The last canary's way through Redis and worker to its answer in the database.",
        labels=LANE,
    )
    waits = GaugeMetricFamily(
        "vdc_canary_unanswered_seconds", "For how long the lane has left canaries unanswered; 0: none.", labels=LANE
    )
    heard = GaugeMetricFamily("vdc_canary_answer_age_seconds", "Time since the lane last answered one.", labels=LANE)
    for canary in canaries:
        if canary.round_trip is not None:
            way.add_metric(lane_of(canary), canary.round_trip.total_seconds())
            heard.add_metric(lane_of(canary), canary.heard_ago.total_seconds())
        waits.add_metric(lane_of(canary), canary.waits.total_seconds() if canary.waits else 0)
    yield from (way, waits, heard)
