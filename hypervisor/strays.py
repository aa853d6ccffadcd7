"""The strays of a node as rows, kept equal to what the node sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from hypervisor.models import Node, Stray, StrayKind, StrayState
from hypervisor.reconcile import Kind
from operations import tally
from operations.events import note

GONE = (StrayState.ADOPTED, StrayState.QUARANTINED)  # what is seen under such a name again is another one


@dataclass(frozen=True, slots=True)
class Sighting:
    """One stray as the node sees it. `facts`: plain values; empty when nothing tells what it is made of."""

    name: str
    hypervisor: str
    observed: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def keep(node: Node, kind: StrayKind, sightings: list[Sighting]) -> None:
    """These are all strays of this kind on the node; those that are seen no more go from the list."""
    seen = {sighting.name for sighting in sightings}
    listed = Stray.objects.filter(node=node, kind=kind).exclude(state__in=(*GONE, *Stray.MOVING))
    for stray in listed.exclude(name__in=seen):
        with transaction.atomic():
            deleted, _ = listed.filter(pk=stray.pk).delete()
            if deleted:  # else an operation has begun on it meanwhile
                note("node", node.uid, "node.stray.gone", f"{stray.name} is seen on {node} no more")
    for sighting in sightings:
        found(node, kind, sighting)


def found(node: Node, kind: StrayKind, sighting: Sighting) -> None:
    """One stray is seen on the node, for the first time or again."""
    look = {"hypervisor": sighting.hypervisor, "observed": sighting.observed, "facts": sighting.facts}
    known = Stray.objects.filter(node=node, name=sighting.name)
    if known.exclude(state__in=GONE).update(**look, seen_at=Now()):
        return
    known.filter(state__in=GONE).delete()
    try:
        with transaction.atomic():
            Stray.objects.create(node=node, kind=kind, name=sighting.name, **look)
            note("node", node.uid, "node.stray", _report(node, kind, sighting))
            tally.count(tally.RECONCILE, Kind.STRAY, node.uid)
    except IntegrityError:  # reported by somebody else just now
        return


def _report(node: Node, kind: StrayKind, sighting: Sighting) -> str:
    if kind == StrayKind.VOLUME:
        return f"{node} keeps the disk {sighting.name}, which is no volume of this node"
    return f"{node} has the guest {sighting.name} ({sighting.observed}), which is no instance of this node"
