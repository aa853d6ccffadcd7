"""What /metrics tells of nodes: signs of life, room, and what their observers see."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Count, F
from django.db.models.functions import Now
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from hypervisor.models import Node, NodeStatus, Stray
from hypervisor.strays import GONE
from operations import tally

NODE = ["node"]
MIB = 1024**2


def families() -> Iterator[Metric]:
    nodes = (
        Node.objects.select_related("pulse", "room")
        .annotate(beat=Now() - F("pulse__heartbeat_at"), seen=Now() - F("pulse__observed_at"))
        .order_by("uid")
    )
    told = {
        name: GaugeMetricFamily(name, text, labels=NODE)
        for name, text in (
            ("vdc_node_online", "1 while the node gives signs of life."),
            ("vdc_node_heartbeat_age_seconds", "Time since the node's last sign of life."),
            ("vdc_node_observation_age_seconds", "Time since its observer last looked at all guests."),
            ("vdc_node_vcpus", "vCPUs that the node offers."),
            ("vdc_node_vcpus_used", "vCPUs taken of them."),
            ("vdc_node_memory_bytes", "Memory that the node offers."),
            ("vdc_node_memory_used_bytes", "Memory taken of it."),
            ("vdc_node_disk_bytes", "Disk that the node offers."),
            ("vdc_node_disk_used_bytes", "Disk taken of it."),
            ("vdc_node_image_cache_entries", "Verified images in the node's store."),
            ("vdc_node_image_cache_bytes", "Disk that they take."),
        )
    }
    for node in nodes:
        for name, value in _values(node).items():
            if value is not None:
                told[name].add_metric([node.uid], value)
    yield from told.values()
    yield _strays()
    yield _differences()


def _values(node: Node) -> dict[str, float | None]:
    """None for what is not known of the node."""
    return {
        "vdc_node_online": node.pulse.status == NodeStatus.ONLINE,
        "vdc_node_heartbeat_age_seconds": node.beat and node.beat.total_seconds(),
        "vdc_node_observation_age_seconds": node.seen and node.seen.total_seconds(),
        "vdc_node_vcpus": node.vcpus,
        "vdc_node_vcpus_used": node.room.vcpus_used,
        "vdc_node_memory_bytes": node.memory_mib * MIB,
        "vdc_node_memory_used_bytes": node.room.memory_mib_used * MIB,
        "vdc_node_disk_bytes": node.disk_bytes,
        "vdc_node_disk_used_bytes": node.room.disk_bytes_used,
        "vdc_node_image_cache_entries": node.pulse.figures.get("image_cache_entries"),
        "vdc_node_image_cache_bytes": node.pulse.figures.get("image_cache_bytes"),
    }


def _strays() -> Metric:
    family = GaugeMetricFamily(
        "vdc_node_strays", "Guests and disks on the node that no row knows.", labels=["node", "kind"]
    )
    waiting = Stray.objects.exclude(state__in=GONE).order_by("node__uid", "kind")
    for uid, kind, count in waiting.values_list("node__uid", "kind").annotate(count=Count("id")):
        family.add_metric([uid, kind], count)
    return family


def _differences() -> Metric:
    family = CounterMetricFamily(
        "vdc_reconcile_differences",
        "Differences that looks at all guests of a node found between what is believed and what is seen.",
        labels=["kind", "node"],
    )
    for labels, count in tally.counts(tally.RECONCILE).items():
        family.add_metric(labels, count)
    return family
