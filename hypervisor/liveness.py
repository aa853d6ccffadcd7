"""Whether a node lives: marked offline by the sweep after silence, online again by its own heartbeat."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.db.models.functions import Now

from core.claim import claim
from hypervisor import listeners
from hypervisor.models import Node, NodePulse, NodeStatus
from operations import timing
from operations.events import note
from operations.sweep import Chore, chores

HEARTBEAT_S = 5 * timing.SCALE
SILENT_AFTER_S = 30 * timing.SCALE
OBSERVE_EVERY_S = 60 * timing.SCALE


def register_chore() -> None:
    """Have the sweep look for silent nodes."""
    chores.append(Chore("silent nodes", HEARTBEAT_S, mark_silent))


def mark_silent(good_for_s: float) -> None:
    """Nodes whose heartbeat is too old go offline, once the database has been up long enough to have heard one."""
    if good_for_s < SILENT_AFTER_S:
        return
    too_old = Now() - timedelta(seconds=SILENT_AFTER_S)
    for pulse in NodePulse.objects.filter(status=NodeStatus.ONLINE, heartbeat_at__lt=too_old).select_related("node"):
        silent = NodePulse.objects.filter(pk=pulse.pk, status=NodeStatus.ONLINE, heartbeat_at=pulse.heartbeat_at)
        with transaction.atomic():  # what follows from silence is told once, and not forgotten half-way
            if claim(silent, status=NodeStatus.OFFLINE):
                _tell_silence(pulse)


def _tell_silence(pulse: NodePulse) -> None:
    node = pulse.node
    note("node", node.uid, "node.offline", f"{node} has been silent since {pulse.heartbeat_at:%H:%M:%S} UTC")
    for listener in listeners.on_silent:
        listener(node)


def beat(node: Node) -> None:
    """The node's own sign of life."""
    NodePulse.objects.filter(pk=node.pk).update(heartbeat_at=Now())
    if claim(NodePulse.objects.filter(pk=node.pk, status=NodeStatus.OFFLINE), status=NodeStatus.ONLINE):
        note("node", node.uid, "node.online", f"{node} is online")


def lanes() -> list[tuple[str, str]]:
    """The lanes of all nodes that live, as (node, lane). One statement."""
    online = Node.objects.filter(pulse__status=NodeStatus.ONLINE).values_list("uid", flat=True)
    return [(uid, lane) for uid in online for lane in ("ops", "bulk")]


def troubles(node_uids: set[str]) -> dict[str, str]:
    """Why nodes cannot work now: {"hn-…": "node hn-…, silent since …"}, without those that can. One statement."""
    found = {
        pulse.node.uid: pulse for pulse in NodePulse.objects.filter(node__uid__in=node_uids).select_related("node")
    }
    said = {uid: f"node {uid}, which is not known any more" for uid in node_uids - found.keys()}
    for uid, pulse in found.items():
        if pulse.status == NodeStatus.OFFLINE:
            since = f"{pulse.heartbeat_at:%Y-%m-%d %H:%M:%S} UTC" if pulse.heartbeat_at else "it joined"
            said[uid] = f"node {uid}, silent since {since}"
    return said
