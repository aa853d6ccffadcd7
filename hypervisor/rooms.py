"""Take room on a node and give it back: claims on the node's room row, once each."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import F
from django.db.models.functions import Greatest

from core.claim import claim
from core.units import memory, size
from hypervisor.models import Node, NodeRoom, NodeStatus
from hypervisor.placement import Candidate, Need, NoRoom, rank


def candidates(only: Iterable[str] = ()) -> list[Candidate]:
    """Every node (or only these uids) as placement sees it."""
    nodes = Node.objects.select_related("room", "pulse").order_by("id")
    wanted = set(only)
    return [
        Candidate(
            uid=node.uid,
            is_online=node.pulse.status == NodeStatus.ONLINE,
            takes_new=node.scheduling_enabled,
            hypervisors=tuple(node.hypervisors),
            arch=node.arch,
            vcpus_free=max(node.vcpus - node.room.vcpus_used, 0),
            memory_mib_free=max(node.memory_mib - node.room.memory_mib_used, 0),
            disk_bytes_free=max(node.disk_bytes - node.room.disk_bytes_used, 0),
        )
        for node in nodes
        if not wanted or node.uid in wanted
    ]


def place(need: Need, *, only: str = "") -> Node:
    """Choose a node and take the room there, in the caller's transaction. Raises NoRoom.

    A candidate lost to someone faster means the next one.
    """
    for candidate in rank(candidates([only] if only else []), need):
        node = Node.objects.get(uid=candidate.uid)
        if _take(node, need):
            return node
    raise NoRoom("No room: other requests took the last fitting node a moment ago; try again.")


def take(node: Node, *, vcpus: int = 0, memory_mib: int = 0, disk_bytes: int = 0) -> None:
    """Take room on this very node, for what is there already, in the caller's transaction. Raises NoRoom."""
    if not _take(node, Need("", "", vcpus, memory_mib, disk_bytes)):
        require(node, vcpus=vcpus, memory_mib=memory_mib, disk_bytes=disk_bytes)
        raise NoRoom(f"No room: others took the room on {node} a moment ago; try again.")


def require(node: Node, *, vcpus: int = 0, memory_mib: int = 0, disk_bytes: int = 0) -> None:
    """Raises NoRoom with what this node lacks; nothing is taken."""
    room = NodeRoom.objects.get(pk=node.pk)
    lacking = [
        (node.vcpus - room.vcpus_used < vcpus, f"{vcpus} vCPUs"),
        (node.memory_mib - room.memory_mib_used < memory_mib, memory(memory_mib)),
        (node.disk_bytes - room.disk_bytes_used < disk_bytes, f"{size(disk_bytes)} of disk"),
    ]
    if wants := " and ".join(words for lacks, words in lacking if lacks):
        raise NoRoom(f"No room: {node} has not {wants} left.")


def _take(node: Node, need: Need) -> bool:
    """One UPDATE of the room's own row: no lock stays on a node that is too full, so two placements cannot deadlock."""
    room = NodeRoom.objects.filter(
        pk=node.pk,
        vcpus_used__lte=node.vcpus - need.vcpus,
        memory_mib_used__lte=node.memory_mib - need.memory_mib,
        disk_bytes_used__lte=node.disk_bytes - need.disk_bytes,
    )
    return claim(
        room,
        vcpus_used=F("vcpus_used") + need.vcpus,
        memory_mib_used=F("memory_mib_used") + need.memory_mib,
        disk_bytes_used=F("disk_bytes_used") + need.disk_bytes,
    )


def give_back(node: Node, *, vcpus: int = 0, memory_mib: int = 0, disk_bytes: int = 0) -> None:
    """Return room. The caller's own claim (a state, a flag) makes sure that it happens once."""
    NodeRoom.objects.filter(pk=node.pk).update(
        vcpus_used=Greatest(F("vcpus_used") - vcpus, 0),
        memory_mib_used=Greatest(F("memory_mib_used") - memory_mib, 0),
        disk_bytes_used=Greatest(F("disk_bytes_used") - disk_bytes, 0),
    )
