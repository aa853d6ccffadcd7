"""What the rooms above want to hear of a node: called by its observer, filled by the apps when they are ready."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hypervisor.contract import Observation
from hypervisor.models import Node

# Before the lanes of a node that starts anew are opened; networks first, then guests.
on_start: list[Callable[[Node], None]] = []
# At start and every minute: what must be there besides guests (bridges, rules, DHCP) is made whole.
on_tend: list[Callable[[Node], None]] = []
# One guest changed.
on_seen: list[Callable[[Node, Observation], None]] = []
# A look at all guests of the node.
on_seen_all: list[Callable[[Node, list[Observation]], None]] = []
# The node has been silent for too long.
on_silent: list[Callable[[Node], None]] = []
# Whose guests are these? uid → primary key of the node, for those that a row knows. For who watches several nodes.
guests_of: list[Callable[[list[str]], dict[str, int]]] = []
# The node goes down in order: power its guests off as operations; yields sentences of progress until all are off.
on_drain: list[Callable[[Node], Iterator[str]]] = []


def nodes_of(uids: list[str]) -> dict[str, int]:
    """The nodes that these guests are on, as far as a row knows."""
    return {uid: node for find in guests_of for uid, node in find(uids).items()}
