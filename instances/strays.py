"""What becomes of strays because an operator asked."""

from __future__ import annotations

from datetime import datetime

from django.db.models import Q
from django.utils import timezone

from accounts.models import Account
from core.errors import Conflict, Invalid, NotFound
from core.units import duration
from hypervisor.models import Node, NodePulse, Stray
from hypervisor.strays import GONE
from instances import adoption
from instances.models import Instance
from instances.stray_verbs import ADOPT, QUARANTINE
from operations import engine
from operations.models import Operation
from volumes.models import Image


def strays_of(node: Node) -> list[Stray]:
    """Those that are there, newest first."""
    return list(Stray.objects.filter(node=node).exclude(state__in=GONE).select_related("node"))


def stray_named(node: Node, name: str) -> Stray:
    """The stray of this name, "i-…", "vol-…" or "st-…"; NotFound and Conflict say what is known instead."""
    there = Stray.objects.filter(node=node).exclude(state__in=GONE).select_related("node")
    stray = there.filter(Q(name=name) | Q(uid=name)).first()
    if stray is not None:
        return stray
    if Instance.objects.on_node(node).filter(uid=name).exists():
        raise Conflict(f"{name} is an instance of {node}, no stray.", code="known")
    seen_at = NodePulse.objects.get(node=node).observed_at
    raise NotFound(f"No stray {name} is seen on {node} ({_last_look(seen_at)}).", code="not_found")


def _last_look(seen_at: datetime | None) -> str:
    return f"last look {duration((timezone.now() - seen_at).total_seconds())} ago" if seen_at else "it never looked"


def adopt_stray(stray: Stray, *, account: Account, image: Image | None = None, requested_by: str) -> Operation:
    """Make the stray an instance or a volume of this account, as it is.

    Conflict: "known" (its id is taken), "unknown_guest", "image_unknown", "no_room", and those of `engine.begin`.
    """
    if image is not None and image.hypervisor != stray.hypervisor:
        raise Invalid(
            f"{image.uid} is an image for {image.hypervisor}; {stray.name} is a guest of {stray.hypervisor}.",
            code="wrong_image",
            field="image",
        )
    image = image or adoption.image_of(stray)
    adoption.check(stray, image)
    params = {"account": account.uid, "image": image.uid if image else ""}
    return engine.begin(ADOPT, stray, requested_by=requested_by, params=params, account=account)


def quarantine_stray(stray: Stray, *, account: Account, requested_by: str) -> Operation:
    """Remove the guest, and move the disks that are nobody's to the trash of the node, kept for this account."""
    params = {"owner": account.uid, "reason": f"the stray {stray.name} was put into quarantine by {requested_by}"}
    return engine.begin(QUARANTINE, stray, requested_by=requested_by, params=params, account=account)
