"""Choose a node, purely: filters in order, each refusal names its filter; what is left is sorted by free memory.

candidates ──online──► scheduling ──► hypervisor ──► architecture ──► vcpus ──► memory ──► disk ──► best first
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.errors import Conflict


@dataclass(frozen=True, slots=True)
class Need:
    """What a guest asks of a node."""

    hypervisor: str
    arch: str
    vcpus: int
    memory_mib: int
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a node has left."""

    uid: str
    is_online: bool
    takes_new: bool
    hypervisors: tuple[str, ...]
    arch: str
    vcpus_free: int
    memory_mib_free: int
    disk_bytes_free: int


class NoRoom(Conflict):
    """No node fits; the detail names the filter that refused the last ones."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, code="no_room")


@dataclass(frozen=True, slots=True)
class Filter:
    """One question to a candidate, and the words for its refusal."""

    name: str
    fits: Callable[[Candidate, Need], bool]
    wants: Callable[[Need], str]


FILTERS: tuple[Filter, ...] = (
    Filter("online", lambda c, n: c.is_online, lambda n: "a node that is online"),
    Filter("scheduling", lambda c, n: c.takes_new, lambda n: "a node that takes new instances"),
    Filter("hypervisor", lambda c, n: n.hypervisor in c.hypervisors, lambda n: f"a node that runs {n.hypervisor}"),
    Filter("architecture", lambda c, n: c.arch == n.arch, lambda n: f"a node of architecture {n.arch}"),
    Filter("vcpus", lambda c, n: c.vcpus_free >= n.vcpus, lambda n: f"{n.vcpus} free vCPUs"),
    Filter("memory", lambda c, n: c.memory_mib_free >= n.memory_mib, lambda n: f"{n.memory_mib} MiB of free memory"),
    Filter(
        "disk", lambda c, n: c.disk_bytes_free >= n.disk_bytes, lambda n: f"{n.disk_bytes / 2**30:.2f} GiB of free disk"
    ),
)


def rank(candidates: Sequence[Candidate], need: Need) -> list[Candidate]:
    """Those that fit, best first. Raises NoRoom with the filter that refused all that were left."""
    if not candidates:
        raise NoRoom("There is no node yet; `manage.py node join` on a hypervisor adds one.")
    left = list(candidates)
    for one in FILTERS:
        before, left = left, [candidate for candidate in left if one.fits(candidate, need)]
        if not left:
            nodes = "the only node that was left" if len(before) == 1 else f"all {len(before)} nodes that were left"
            raise NoRoom(f"No room: the filter '{one.name}' refused {nodes}; needed is {one.wants(need)}.")
    return sorted(left, key=lambda c: (-c.memory_mib_free, -c.vcpus_free, c.uid))
