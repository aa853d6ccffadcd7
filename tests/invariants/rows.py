"""What must be true of the rows of a data center at rest: everything has ended, and what is held adds up."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Sum

from hypervisor.models import NodeRoom
from instances.models import Instance, Vif
from networks.models import Lease
from operations import register
from operations.models import Event, Operation, OperationSubject, Step
from operations.states import Hold, OperationState
from volumes.models import Volume
from volumes.states import VolumeState


def violations() -> Iterator[str]:
    yield from _operations()
    yield from _subjects()
    yield from _room()
    yield from _instances()
    yield from _addresses()


def _operations() -> Iterator[str]:
    for operation in Operation.objects.filter(ended_at=None):
        yield f"{operation.uid} ({operation.verb}) is {operation.state} and has not ended"
    for step in Step.objects.filter(ended_at=None, operation__ended_at__isnull=False).select_related("operation"):
        yield f"step {step.position} {step.task} of {step.operation.uid} is {step.state}, its operation has ended"
    for hold in OperationSubject.objects.exclude(hold=Hold.CLOSED).exclude(operation__ended_at=None):
        yield f"{hold} is a hold of an operation that has ended"
    for step in Step.objects.filter(ended_at__isnull=False):
        ends = [past for past in step.attempts if past["outcome"] in ("done", "undone")]
        if len(ends) != len({past["outcome"] for past in ends}):
            yield f"step {step.position} {step.task} of operation {step.operation_id} was settled twice: {ends}"
    for operation in Operation.objects.exclude(ended_at=None):
        said = Event.objects.filter(operation_uid=operation.uid, name=f"{operation.verb}.{operation.state}").count()
        if said != 1:
            yield f"the end of {operation.uid} ({operation.verb}) was told {said} times"
        if operation.state != OperationState.DONE and not (operation.error or operation.cancel_reason):
            yield f"{operation.uid} ({operation.verb}) is {operation.state} and says no reason"


def _subjects() -> Iterator[str]:
    """No subject of an operation is in motion while none holds it. One that waits for its owner was never a subject."""
    moved = set(OperationSubject.objects.values_list("uid", flat=True))
    held = set(OperationSubject.objects.filter(hold=Hold.OPEN).values_list("uid", flat=True))
    for noun in register.nouns.values():
        for row in noun.model.objects.filter(state__in=noun.model.MOVING, uid__in=moved - held):
            yield f"{row.uid} is still {row.state}, and no operation moves it"


def _room() -> Iterator[str]:
    for room in NodeRoom.objects.select_related("node"):
        guests = Instance.objects.filter(node=room.node, room_held=True).aggregate(Sum("vcpus"), Sum("memory_mib"))
        disks = Volume.objects.filter(node=room.node, room_held=True).aggregate(Sum("size_bytes"))
        taken = (room.vcpus_used, room.memory_mib_used, room.disk_bytes_used)
        counted = (guests["vcpus__sum"] or 0, guests["memory_mib__sum"] or 0, disks["size_bytes__sum"] or 0)
        if taken != counted:
            yield f"{room} says that {taken} is taken (vCPUs, MiB, bytes), a recount says {counted}"


def _instances() -> Iterator[str]:
    for instance in Instance.objects.all():
        is_gone = instance.state == "terminated"
        holds = {
            "room": instance.room_held,
            "a slot": instance.slot is not None,
            "a place among the live": instance.terminated_at is None,
            "its addresses": instance.vifs.filter(lease__isnull=False).exists(),
        }
        for what, is_held in holds.items():
            if is_held and is_gone:
                yield f"{instance.uid} is terminated and still holds {what}"
            if not is_held and not is_gone and instance.state != "stopped":
                yield f"{instance.uid} is {instance.state} and does not hold {what}"
    for volume in Volume.objects.all():
        if volume.room_held == (volume.state == VolumeState.DELETED):
            holds = "still holds" if volume.room_held else "does not hold"
            yield f"{volume.uid} is {volume.state} and {holds} its room"


def _addresses() -> Iterator[str]:
    holders = dict(Vif.objects.values_list("uid", "lease__holder"))
    for lease in Lease.objects.all():
        if holders.get(lease.holder) != lease.holder:
            yield f"the lease {lease} has no vif"
