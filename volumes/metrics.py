"""What /metrics tells of the images that nodes keep: whether a launch found its image there."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

from operations import tally
from volumes.tasks import fetch_image

RESULTS = {"true": "hit", "false": "miss"}


def families() -> Iterator[Metric]:
    family = CounterMetricFamily(
        "vdc_image_cache_requests", "Steps that needed an image in a node's store.", labels=["result"]
    )
    for (task, was_present), count in tally.counts(tally.STEPS_REUSED).items():
        if task == fetch_image.name:
            family.add_metric([RESULTS[was_present]], count)
    yield family
