"""What a stray needs to become an instance or a volume, and the rows that it becomes: all of them, or none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from accounts.models import Account
from core.errors import Conflict
from hypervisor import rooms
from hypervisor.models import Node, Stray, StrayKind
from instances.models import Instance, Vif, VolumeAttachment
from instances.services import free_slot
from instances.states import InstanceState, Wanted
from networks import leases
from networks.models import Network
from volumes.models import Image, Volume
from volumes.states import VolumeState

SLOT_IN_NAME = re.compile(r"v(\d+)s(\d+)n\d+")


@dataclass(frozen=True, slots=True)
class Found:
    """What the node saw when it looked at the stray to be adopted; of a volume the disk alone."""

    disks: list[dict[str, Any]]  # [{"uid", "format", "size_bytes"}], the one that it boots from first
    vcpus: int = 0
    memory_mib: int = 0
    nics: tuple[dict[str, Any], ...] = ()  # [{"mac", "ipv4", "bridge", "host_interface"}]
    observed: str = ""
    reason: str = ""

    @property
    def disk_bytes(self) -> int:
        return sum(disk["size_bytes"] for disk in self.disks)


def check(stray: Stray, image: Image | None) -> None:
    """Raises Conflict with the reason why the stray, as it was seen last, cannot be adopted."""
    _check_names(stray, [disk["uid"] for disk in disks_of(stray)])
    if stray.kind == StrayKind.GUEST:
        if not stray.facts.get("disks"):
            raise Conflict(
                f"Nothing on {stray.node} tells what {stray.name} is made of; it can be put into quarantine only.",
                code="unknown_guest",
            )
        if image is None:
            raise Conflict(
                f"{stray.name} was made from an image that is not known here; name one of kind {stray.hypervisor}.",
                code="image_unknown",
                field="image",
            )
    facts = stray.facts
    size_bytes = sum(disk["size_bytes"] for disk in disks_of(stray))
    vcpus, memory_mib = facts.get("vcpus", 0), facts.get("memory_mib", 0)
    rooms.require(stray.node, vcpus=vcpus, memory_mib=memory_mib, disk_bytes=size_bytes)


def disks_of(stray: Stray) -> list[dict[str, Any]]:
    """[{"uid", "format", "size_bytes", …}] as they were seen last; a stray disk is its own."""
    return [{**stray.facts, "uid": stray.name}] if stray.kind == StrayKind.VOLUME else stray.facts.get("disks", [])


def image_of(stray: Stray) -> Image | None:
    """The image that its first disk was cloned from, if it is still known."""
    sha256 = stray.facts.get("base_sha256")
    images = Image.objects.filter(hypervisor=stray.hypervisor, backup_object__sha256=sha256)
    return images.order_by("id").first() if sha256 else None


def _check_names(stray: Stray, disks: list[str]) -> None:
    """Ids are never used again: what has a row, wherever and in whatever state, is not made a second time."""
    instance = Instance.objects.select_related("node").filter(uid=stray.name).first()
    if instance is not None:
        raise Conflict(
            f"{instance.uid} is the id of an instance on {instance.node} already ({instance.state}); "
            "ids are never used again, so this guest can be put into quarantine only.",
            code="known",
            state=instance.state,
        )
    volume = Volume.objects.select_related("node").filter(uid__in=disks).first()
    if volume is not None:
        raise Conflict(
            f"{volume.uid} is the id of a volume on {volume.node} already ({volume.state}); "
            "put the disk into quarantine, and restore it from the trash if it is that volume.",
            code="known",
            state=volume.state,
        )


def write(stray: Stray, account: Account, image: Image | None, found: Found) -> None:
    """The rows of what was adopted, with its room, in the caller's transaction. Raises Conflict."""
    _check_names(stray, [disk["uid"] for disk in found.disks])
    rooms.take(stray.node, vcpus=found.vcpus, memory_mib=found.memory_mib, disk_bytes=found.disk_bytes)
    if stray.kind == StrayKind.VOLUME:
        _volume(stray, account, None, found.disks[0], VolumeState.AVAILABLE)
        return
    runs = found.observed in ("running", "paused")
    instance = Instance.objects.create(
        uid=stray.name,
        account=account,
        image=image,
        node=stray.node,
        hypervisor=stray.hypervisor,
        name=stray.name,
        hostname=stray.name,
        vcpus=found.vcpus,
        memory_mib=found.memory_mib,
        slot=_slot(stray.node, found),
        room_held=True,
        state=InstanceState.RUNNING if runs else InstanceState.HALTED,
        wanted=Wanted.RUNNING if runs else Wanted.HALTED,
        observed=found.observed,
        observed_reason=found.reason[:255],
        observed_at=stray.seen_at,
    )
    for position, disk in enumerate(found.disks):
        volume = _volume(stray, account, image if position == 0 else None, disk, VolumeState.ATTACHED)
        VolumeAttachment.objects.create(instance=instance, volume=volume, position=position, boot=position == 0)
    for position, nic in enumerate(found.nics):
        _vif(instance, position, nic)


def _slot(node: Node, found: Found) -> int:
    """The one that its cards are named after, if nobody has it: it chooses the ids of a container too."""
    for nic in found.nics:
        named = SLOT_IN_NAME.fullmatch(nic["host_interface"])
        if named and int(named[1]) == node.number:
            slot = int(named[2])
            if not Instance.objects.filter(node=node, slot=slot).exists():
                return slot
    return free_slot(node)


def _volume(stray: Stray, account: Account, image: Image | None, disk: dict[str, Any], state: VolumeState) -> Volume:
    return Volume.objects.create(
        uid=disk["uid"],
        account=account,
        node=stray.node,
        image=image,
        size_bytes=disk["size_bytes"],
        format=disk["format"],
        state=state,
        room_held=True,
    )


def _vif(instance: Instance, position: int, nic: dict[str, Any]) -> None:
    network = Network.objects.filter(bridge=nic["bridge"]).first()
    if network is None:
        raise Conflict(
            f"{instance.uid} is plugged into {nic['bridge']}, which is the bridge of no network.", code="no_network"
        )
    vif = Vif(instance=instance, network=network, position=position)
    vif.lease = leases.lease_again(
        network, holder=vif.uid, hostname=instance.hostname, mac=nic["mac"], ipv4=nic.get("ipv4", "")
    )
    vif.save(force_insert=True)
