"""What can be said of nodes and strays to whoever asks what is wrong."""

from __future__ import annotations

from core.units import memory, size
from hypervisor import liveness
from hypervisor.models import Node, NodeStatus, Stray, StrayState
from operations.explaining import Explainer, Facts, Sight
from operations.models import Step


def sights(node: Node | None) -> list[Sight]:
    """A node's last signs of life."""
    if node is None:
        return []
    pulse = node.pulse
    return [
        Sight(node.uid, f"{pulse.status}, its last heartbeat", pulse.heartbeat_at),
        Sight(node.uid, "looked at all its guests", pulse.observed_at),
    ]


def _facts(node: Node) -> Facts:
    room = node.room
    waiting = Step.objects.filter(node=node.uid, ended_at=None, queued_at__isnull=False)
    lanes = {
        lane: (
            waiting.filter(lane=lane, worker="").count(),
            list(waiting.filter(lane=lane).exclude(worker="").values_list("operation__uid", flat=True)),
        )
        for lane in ("ops", "bulk")
    }
    trouble = liveness.troubles({node.uid}).get(node.uid)
    warned = f" It warns: {' '.join(node.warnings)}" if node.warnings else ""
    return Facts(
        asked={
            "name": node.name,
            "hypervisors": ", ".join(node.hypervisors) or "none",
            "takes new instances": "yes" if node.scheduling_enabled else "no",
            **{f"lane {lane}": _lane(queued, at_it) for lane, (queued, at_it) in lanes.items()},
        },
        seen=sights(node),
        held=[
            f"{room.vcpus_used} of {node.vcpus} vCPUs, {memory(room.memory_mib_used)} of {memory(node.memory_mib)} of "
            f"memory and {size(room.disk_bytes_used)} of {size(node.disk_bytes)} of disk are taken"
        ],
        verdict=f"{trouble or f'{node.uid} is {NodeStatus(node.pulse.status)}'}.{warned}",
    )


def _lane(queued: int, at_it: list[str]) -> str:
    running = f"works for {', '.join(sorted(set(at_it)))}" if at_it else "idle"
    return f"{running}; {queued} step{'' if queued == 1 else 's'} waiting" if queued else running


def _stray_facts(stray: Stray) -> Facts:
    seen = f"{stray.kind} {stray.name} {stray.observed}".strip()
    return Facts(
        asked={"kind": stray.kind, "name": stray.name, "hypervisor": stray.hypervisor, "node": str(stray.node)},
        seen=[Sight(stray.uid, seen, stray.seen_at), *sights(stray.node)],
        verdict=f"{stray.uid} is {stray.state}: {stray.node} has the {stray.kind} {stray.name}, and no row knows it."
        if stray.state == StrayState.SEEN
        else "",
    )


STRAY = Explainer("stray", lambda: Stray.objects.select_related("node__pulse"), _stray_facts, operators_only=True)
NODE = Explainer("node", lambda: Node.objects.select_related("pulse", "room"), _facts, operators_only=True)
