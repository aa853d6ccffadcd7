"""Take room on a node and give it back: claims on the node's room row, once each."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection
from django.db.models import F
from django.db.models.functions import Greatest

from core.units import memory, size
from hypervisor.models import Node, NodeRoom, NodeStatus
from hypervisor.placement import Candidate, Need, NoRoom, rank

# As SQL, for the lock which passes over what others hold is part of the statement that takes.
_TAKE = """
    UPDATE hypervisor_noderoom
       SET vcpus_used = vcpus_used + %(vcpus)s,
           memory_mib_used = memory_mib_used + %(memory_mib)s,
           disk_bytes_used = disk_bytes_used + %(disk_bytes)s
     WHERE node_id = (
               SELECT room.node_id
                 FROM hypervisor_noderoom AS room JOIN hypervisor_node AS node ON node.id = room.node_id
                WHERE node.uid = %(node)s
                  AND room.vcpus_used + %(vcpus)s <= node.vcpus
                  AND room.memory_mib_used + %(memory_mib)s <= node.memory_mib
                  AND room.disk_bytes_used + %(disk_bytes)s <= node.disk_bytes
                  FOR UPDATE OF room
           )
"""
_TAKE_UNLESS_LOCKED = _TAKE.replace("FOR UPDATE OF room", "FOR UPDATE OF room SKIP LOCKED")


def candidates(only: Iterable[str] = ()) -> list[Candidate]:
    """Every node (or only these uids) as placement sees it."""
    nodes = Node.objects.order_by("id")
    wanted = set(only)
    return [
        Candidate(
            uid=uid,
            is_online=status == NodeStatus.ONLINE,
            takes_new=takes_new,
            hypervisors=tuple(hypervisors),
            arch=arch,
            vcpus_free=max(vcpus - vcpus_used, 0),
            memory_mib_free=max(memory_mib - memory_mib_used, 0),
            disk_bytes_free=max(disk_bytes - disk_bytes_used, 0),
        )
        for (
            uid, status, takes_new, hypervisors, arch,
            vcpus, vcpus_used, memory_mib, memory_mib_used, disk_bytes, disk_bytes_used,
        ) in nodes.values_list(
            "uid", "pulse__status", "scheduling_enabled", "hypervisors", "arch",
            "vcpus", "room__vcpus_used", "memory_mib", "room__memory_mib_used", "disk_bytes", "room__disk_bytes_used",
        )
        if not wanted or uid in wanted
    ]  # fmt: skip


def place(need: Need, *, only: str = "") -> Node:
    """Choose a node and take the room there, in the caller's transaction. Raises NoRoom.

    A candidate lost to someone faster means the next one; so does one that somebody places on at this moment, until
    only such are left.
    """
    ranked = rank(candidates([only] if only else []), need)
    for wait in (False, True):
        for candidate in ranked:
            if _take(candidate.uid, need, wait=wait):
                return Node.objects.get(uid=candidate.uid)
    raise NoRoom("No room: other requests took the last fitting node a moment ago; try again.")


def _take(uid: str, need: Need, *, wait: bool) -> bool:
    """One UPDATE of the room's own row: no lock stays on a node that is too full, so two placements cannot deadlock."""
    words = {"vcpus": need.vcpus, "memory_mib": need.memory_mib, "disk_bytes": need.disk_bytes, "node": uid}
    with connection.cursor() as cursor:
        cursor.execute(_TAKE if wait else _TAKE_UNLESS_LOCKED, words)
        return cursor.rowcount == 1


def take(node: Node, *, vcpus: int = 0, memory_mib: int = 0, disk_bytes: int = 0) -> None:
    """Take room on this very node, for what is there already, in the caller's transaction. Raises NoRoom."""
    if not _take(node.uid, Need("", "", vcpus, memory_mib, disk_bytes), wait=True):
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


def give_back(node: Node, *, vcpus: int = 0, memory_mib: int = 0, disk_bytes: int = 0) -> None:
    """Return room. The caller's own claim (a state, a flag) makes sure that it happens once."""
    NodeRoom.objects.filter(pk=node.pk).update(
        vcpus_used=Greatest(F("vcpus_used") - vcpus, 0),
        memory_mib_used=Greatest(F("memory_mib_used") - memory_mib, 0),
        disk_bytes_used=Greatest(F("disk_bytes_used") - disk_bytes, 0),
    )
