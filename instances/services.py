"""What changes instances because someone asked."""

from __future__ import annotations

import re
from typing import Any

from django.db import IntegrityError, transaction

from accounts.models import Account, SshKeyPair
from core.errors import Conflict, Invalid
from hypervisor import rooms
from hypervisor.models import Node
from hypervisor.placement import Need
from instances.models import Instance, Vif, VolumeAttachment
from instances.specs import SLOTS_PER_NODE
from instances.verbs import LAUNCH, POWEROFF, POWERON, RETRY, TERMINATE
from networks import leases
from networks.models import Network
from operations import engine
from operations.models import Operation
from volumes.models import Image, Volume
from volumes.states import ImageState

HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
DISK_FORMAT = {"kvm": "qcow2", "lxc": "raw", "fake": "raw"}


def launch_instance(
    account: Account,
    *,
    image: Image,
    name: str = "",
    hostname: str = "",
    vcpus: int = 1,
    memory_mib: int = 256,
    volume_size_bytes: int | None = None,
    ssh_keys: tuple[SshKeyPair, ...] = (),
    user_data: str = "",
    node: Node | None = None,
    requested_by: str,
) -> tuple[Instance, Operation]:
    """Place, lease and write a new instance in one transaction, and begin its launch.

    Refusals leave nothing behind: Invalid for a field, Conflict "no_room", "hostname_taken", "no_address".
    """
    size_bytes = _volume_size(image, volume_size_bytes)
    _check_memory(image, memory_mib)
    instance = Instance(
        account=account,
        image=image,
        hypervisor=image.hypervisor,
        vcpus=vcpus,
        memory_mib=memory_mib,
        user_data=user_data,
        ssh_keys=[{"id": key.uid, "public_key": key.public_key} for key in ssh_keys],
        room_held=True,
    )
    instance.hostname = _checked_hostname(hostname) if hostname else instance.uid
    instance.name = name or instance.hostname
    with transaction.atomic():
        need = Need(image.hypervisor, image.arch, vcpus, memory_mib, size_bytes)
        instance.node = rooms.place(need, only=node.uid if node else "")
        instance.slot = free_slot(instance.node)
        _insert(instance)
        instance.cards = [_give_vif(instance)]
        instance.links = [_give_root_volume(instance, size_bytes)]
        operation = engine.begin_at_birth(LAUNCH, instance, requested_by=requested_by)
    return instance, operation


def _volume_size(image: Image, asked_bytes: int | None) -> int:
    if image.state != ImageState.AVAILABLE:
        raise Conflict(
            f"{image.uid} is {image.state}; only an available image can be launched.",
            code="image_not_available",
            field="image",
            state=image.state,
        )
    raw_bytes = image.backup_object.raw_size_bytes or 0
    if asked_bytes is not None and asked_bytes < raw_bytes:
        raise Invalid(
            f"The image {image.uid} unpacks to {raw_bytes} bytes; a volume of {asked_bytes} bytes is too small for it.",
            code="volume_too_small",
            field="volume_size_bytes",
        )
    return asked_bytes or raw_bytes


def _check_memory(image: Image, memory_mib: int) -> None:
    if memory_mib < image.min_memory_mib:
        raise Invalid(
            f"The image {image.uid} needs at least {image.min_memory_mib} MiB of memory, not {memory_mib}.",
            code="memory_too_small",
            field="memory_mib",
        )


def _checked_hostname(hostname: str) -> str:
    if not HOSTNAME.fullmatch(hostname):
        raise Invalid(
            f"{hostname!r} is no host name: 1 to 63 small letters, digits and hyphens, no hyphen at either end.",
            code="bad_hostname",
            field="hostname",
        )
    return hostname


def free_slot(node: Node) -> int:
    """The smallest free slot; the caller's claim on the node's room row keeps others waiting meanwhile."""
    taken = set(Instance.objects.filter(node=node, slot__isnull=False).values_list("slot", flat=True))
    free = next((slot for slot in range(SLOTS_PER_NODE) if slot not in taken), None)
    if free is None:
        raise Conflict(f"No room: {node} runs {SLOTS_PER_NODE} instances, the most that a node takes.", code="no_room")
    return free


def _insert(instance: Instance) -> None:
    try:
        instance.save(force_insert=True)
    except IntegrityError as exc:  # the caller's transaction ends with it, whatever is raised
        if "one_live_instance_per_hostname" not in str(exc):
            raise
        raise Conflict(
            f"The host name {instance.hostname!r} is taken by another instance of this account.",
            code="hostname_taken",
            field="hostname",
        ) from exc


def _give_vif(instance: Instance) -> Vif:
    network = Network.objects.filter(is_default=True).first()
    if network is None:
        raise Conflict("There is no default network yet; an operator adds one.", code="no_network")
    vif = Vif(instance=instance, network=network, position=0)
    vif.lease = leases.lease(network, holder=vif.uid, hostname=instance.hostname)
    vif.save(force_insert=True)
    return vif


def _give_root_volume(instance: Instance, size_bytes: int) -> VolumeAttachment:
    volume = Volume.objects.create(
        account=instance.account,
        node=instance.node,
        image=instance.image,
        size_bytes=size_bytes,
        format=DISK_FORMAT[instance.hypervisor],
        room_held=True,
    )
    return VolumeAttachment.objects.create(instance=instance, volume=volume, position=0, boot=True)


def poweroff_instance(
    instance: Instance, *, requested_by: str, force: bool = False, timeout_s: int | None = None
) -> Operation:
    """Power off in order, by force after `timeout_s` seconds (60 if not said); `force`: at once."""
    params: dict[str, Any] = {"force": True} if force else {}
    if timeout_s is not None:
        params["timeout_s"] = timeout_s
    return engine.begin(POWEROFF, instance, requested_by=requested_by, params=params)


def poweron_instance(instance: Instance, *, requested_by: str) -> Operation:
    """Start a halted instance with its disks and addresses."""
    return engine.begin(POWERON, instance, requested_by=requested_by)


def retry_instance(instance: Instance, *, requested_by: str) -> Operation:
    """Go on with the operation that left the instance in error: what is whole is used again."""
    return engine.begin(RETRY, instance, requested_by=requested_by)


def terminate_instance(instance: Instance, *, requested_by: str) -> Operation:
    """End an instance for good; whatever it is busy with is superseded."""
    return engine.begin(TERMINATE, instance, requested_by=requested_by)
