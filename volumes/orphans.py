"""Disks of ours on a node that no volume owns: reported as strays."""

from __future__ import annotations

from hypervisor import local, strays
from hypervisor.contract import Hypervisor, VolumeFile
from hypervisor.models import Node, StrayKind
from hypervisor.strays import Sighting
from volumes.models import Volume
from volumes.states import VolumeState


def report(node: Node, *, besides: set[str]) -> None:
    """List the whole disks that are nobody's; `besides` are those of guests that are strays themselves."""
    if not set(node.hypervisors) - {Hypervisor.FAKE}:
        return
    files = {file.uid: file for file in local.volumes(Hypervisor.LXC).all_present()}
    owned = Volume.objects.filter(node=node, uid__in=files).exclude(state=VolumeState.DELETED)
    unowned = files.keys() - besides - set(owned.values_list("uid", flat=True))
    # Only what is still there after the rows were read: it may have gone to the trash in between.
    here = [file for uid in sorted(unowned) if (file := local.volumes(Hypervisor.LXC).present(uid))]
    strays.keep(node, StrayKind.VOLUME, [_sighting(file) for file in here])


def is_owned(node: Node, uid: str) -> bool:
    """Does a volume own the disk of this name on the node?"""
    return Volume.objects.filter(node=node, uid=uid).exclude(state=VolumeState.DELETED).exists()


def _sighting(file: VolumeFile) -> Sighting:
    hypervisor = Hypervisor.KVM if file.format == "qcow2" else Hypervisor.LXC
    return Sighting(file.uid, hypervisor, facts={"format": file.format, "size_bytes": file.size_bytes})
