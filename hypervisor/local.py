"""This machine as a node: its row, its folders, and the parts that work here. For step tasks and the observer."""

from __future__ import annotations

import functools
import pwd
from datetime import timedelta
from pathlib import Path

from django.conf import settings

from core.errors import Permanent
from hypervisor import bridges
from hypervisor.contract import Hypervisor, NetworkSpec, Watch
from hypervisor.drivers.base import Driver
from hypervisor.drivers.fake_disks import FakeImages, FakeVolumes
from hypervisor.drivers.load import load
from hypervisor.drivers.settings import DriverSettings
from hypervisor.image_store import ImageStore
from hypervisor.models import Node
from hypervisor.trash import Trash
from hypervisor.volume_files import VolumeFiles

QEMU_USER = "libvirt-qemu"
TRASH_KEEP_HOURS = 24


def node_dir() -> Path:
    """`/var/lib/<stack>/node`."""
    return Path(settings.STACK["state_dir"]) / "node"


def storage_dir() -> Path:
    """The `local` backup storage that this node holds."""
    return Path(settings.STACK["state_dir"]) / "storage"


def this_node() -> Node:
    """The row of this machine; Permanent when it has not joined."""
    name = settings.STACK["node_name"]
    node = Node.objects.filter(name=name).first()
    if node is None:
        raise Permanent(f"The machine {name!r} is no node of this data center.", advice="Run `manage.py node join`.")
    return node


def console_log(uid: str) -> Path:
    """Where the console of a guest is kept."""
    return node_dir() / "consoles" / f"{uid}.log"


@functools.cache
def driver(hypervisor: str) -> Driver:
    """The driver of this process for a hypervisor; connects at its first call."""
    return load(
        Hypervisor(hypervisor),
        DriverSettings(
            stack=settings.STACK["name"],
            node_dir=node_dir(),
            libvirt_socket=Path(settings.STACK["libvirt_socket"]),
            acceleration=this_node().acceleration or "tcg",
            qemu_user=QEMU_USER,
        ),
    )


@functools.cache
def images(hypervisor: str) -> ImageStore | FakeImages:
    """The store of verified images of this node."""
    if hypervisor == Hypervisor.FAKE:
        return FakeImages()
    return ImageStore(node_dir() / "images", reclaim=_empty_trash)


def figures(node: Node) -> dict[str, int]:
    """What the observer of this machine's node measures for /metrics."""
    if set(node.hypervisors) <= {Hypervisor.FAKE}:
        return {}
    entries, size_bytes = images(Hypervisor.LXC).usage()
    return {"image_cache_entries": entries, "image_cache_bytes": size_bytes}


@functools.cache
def volumes(hypervisor: str) -> VolumeFiles | FakeVolumes:
    """The volume files of this node; those of KVM belong to the user that QEMU runs as."""
    if hypervisor == Hypervisor.FAKE:
        return FakeVolumes()
    user = pwd.getpwnam(QEMU_USER) if hypervisor == Hypervisor.KVM else None
    return VolumeFiles(
        node_dir() / "volumes",
        images(hypervisor),
        trash(),
        owner_uid=user.pw_uid if user else None,
        owner_gid=user.pw_gid if user else None,
    )


def disk_path(hypervisor: str, uid: str, disk_format: str) -> str:
    """Where the file of a volume is, or will be."""
    if hypervisor == Hypervisor.FAKE:
        return f"fake:{uid}.{disk_format}"
    return str(node_dir() / "volumes" / f"{uid}.{disk_format}")


@functools.cache
def trash() -> Trash:
    """Where disks go before they are deleted; the stack file may say for how many hours."""
    keep_for = timedelta(hours=settings.STACK.get("trash_keep_hours", TRASH_KEEP_HOURS))
    return Trash(node_dir() / "trash", node_dir() / "volumes", keep_for)


def _empty_trash(need_bytes: int) -> None:
    trash().empty(need_bytes=need_bytes, purpose="an image")


def ensure_network(spec: NetworkSpec, watch: Watch | None) -> None:
    """Make one network whole on this node."""
    place = bridges.NetworkPlace(
        run_dir=Path(settings.STACK["run_dir"]) / "networks" / spec.uid, nft_table=settings.STACK["nft_table"]
    )
    bridges.ensure_network(spec, place, watch)
