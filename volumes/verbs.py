"""Everything that can be done to images and volumes, as one table."""

from __future__ import annotations

from typing import Any

from core.claim import claim
from hypervisor import rooms
from hypervisor.contract import Hypervisor
from operations.models import Operation
from operations.plan import Plan, step
from operations.register import Verb
from volumes import tasks
from volumes.models import Image, Volume
from volumes.states import ImageState, VolumeState

S = ImageState
V = VolumeState
MOVE_S = 60  # to rename a few files


def _import(image: Image, params: dict[str, Any]) -> Plan:
    stored = image.backup_object
    node = stored.storage.node.uid
    return Plan(
        (
            step(
                tasks.store_object,
                node=node,
                lane="bulk",
                params={"backup_object": stored.uid, **params},
                moves={image: S.CREATING, stored: S.CREATING},
                idle_timeout_s=90,
            ),
            step(
                tasks.publish_image,
                node="",
                lane="control",
                params={"image": image.uid},
                settles={stored: S.AVAILABLE},
                deadline_s=60,
            ),
        ),
        also=(stored,),
    )


def _restore(volume: Volume, params: dict[str, Any]) -> Plan:
    return Plan(
        (
            step(
                tasks.restore_volume,
                node=volume.node.uid,
                lane="ops",
                params={"volume": volume.uid, "hypervisor": _hypervisor(volume), **params},
                moves={volume: V.CREATING},
                deadline_s=MOVE_S,
            ),
        )
    )


def _hypervisor(volume: Volume) -> str:
    """Whose volume files it is among."""
    if volume.image:
        return volume.image.hypervisor
    return Hypervisor.KVM if volume.format == "qcow2" else Hypervisor.LXC


def _take_room(volume: Volume, operation: Operation) -> None:
    if claim(Volume.objects.filter(pk=volume.pk, room_held=False), room_held=True):
        rooms.take(volume.node, disk_bytes=volume.size_bytes)


def _end_restore(volume: Volume, operation: Operation) -> None:
    """A restored volume stands alone; one that stays in the trash takes no room."""
    if volume.state == V.DELETED:
        tasks.give_back_room(volume)
    elif hasattr(volume, "attachment"):  # to the instance that was terminated
        volume.attachment.delete()


#              noun      name       from                     to            plan
IMPORT = Verb("image", "import", frozenset({S.PENDING}), S.AVAILABLE, _import, offered=False)
RESTORE = Verb(
    "volume",
    "restore",
    frozenset({V.DELETED}),
    V.AVAILABLE,
    _restore,
    failed_to=V.DELETED,
    cancelled_to=V.DELETED,
    on_begin=_take_room,
    on_end=_end_restore,
    offered=False,
)

IMAGE = [IMPORT]
VOLUME = [RESTORE]
