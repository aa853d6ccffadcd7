"""Guests as libvirt alone would start them: the product's XML and disks, and none of its rows, queues and checks."""

from __future__ import annotations

import pwd
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

from bench.quiet_watch import QuietWatch
from hypervisor.contract import (
    DiskSpec,
    GuestSpec,
    Hypervisor,
    NicSpec,
    SeedSpec,
    SourceSpec,
    VolumeSpec,
)
from hypervisor.drivers.libvirt import domain_xml, rootfs, seed
from hypervisor.image_store import ImageStore
from hypervisor.trash import Trash
from hypervisor.volume_files import VolumeFiles

STRANGER = "bench"  # written into the XML in place of the stack: its observer takes no notice of these guests
SLOT = 511  # the last of a node; far from those that the product gives
UID_BASE = 524_288 + 65_536 * 40_000
QEMU_USER = "libvirt-qemu"


@dataclass(frozen=True)
class Timing:
    """Seconds for the disk (image looked up, volume made, mounted for LXC) and for the calls of libvirt."""

    disk_s: float
    libvirt_s: float


class BareGuest:
    """Starts one guest of an image that is in the node's store, again and again. Runs where libvirtd's mounts are."""

    def __init__(self, stack: dict[str, Any], image: dict[str, Any], *, memory_mib: int, acceleration: str) -> None:
        self._image = image
        self._hypervisor = Hypervisor(image["hypervisor"])
        self._acceleration = acceleration
        node_dir = Path(stack["state_dir"]) / "node"
        self._scratch = node_dir / "bench" / self._hypervisor
        self._scratch.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._root = node_dir / "mounts" / f"bench-{self._hypervisor}"
        self._store = ImageStore(node_dir / "images")
        self._owner = pwd.getpwnam(QEMU_USER) if self._hypervisor == Hypervisor.KVM else None
        self._volumes = VolumeFiles(
            self._scratch / "volumes",
            self._store,
            Trash(node_dir / "trash", self._scratch / "volumes"),
            owner_uid=self._owner.pw_uid if self._owner else None,
            owner_gid=self._owner.pw_gid if self._owner else None,
        )
        self._spec = self._guest_spec(stack, memory_mib)
        self._xml = self._render()
        driver = "lxc" if self._hypervisor == Hypervisor.LXC else "qemu"
        self._connection = libvirt.open(f"{driver}+unix:///system?socket={stack['libvirt_socket']}")
        self._domain: libvirt.virDomain | None = None

    def _guest_spec(self, stack: dict[str, Any], memory_mib: int) -> GuestSpec:
        disk_format = "raw" if self._hypervisor == Hypervisor.LXC else "qcow2"
        uid = f"bench-{self._hypervisor}"
        disk = DiskSpec(
            uid=f"vol-{uid}",
            path=str(self._scratch / "volumes" / f"vol-{uid}.{disk_format}"),
            format=disk_format,
            size_bytes=self._image["size_bytes"],
            boot=True,
        )
        nic = NicSpec("52:54:00:be:0c:01", "", stack["bridge"], f"v{stack['number']}s{SLOT}n0")
        return GuestSpec(
            uid=uid,
            slot=SLOT,
            hypervisor=self._hypervisor,
            arch=self._image["arch"],
            vcpus=1,
            memory_mib=memory_mib,
            disks=(disk,),
            nics=(nic,),
            seed=SeedSpec(uid, uid),
            init=self._image["init"],
            root_device=self._image["root_device"],
            uid_base=UID_BASE,
            console_log=str(Path(stack["state_dir"]) / "node" / "consoles" / f"{uid}.log"),
        )

    def _render(self) -> str:
        """The XML with the seed that it names: made once, no part of what is measured."""
        if self._hypervisor == Hypervisor.LXC:
            directory = self._scratch / "seed"
            seed.write_directory(self._spec.seed, directory, owner=UID_BASE)
            return domain_xml.lxc_domain(self._spec, stack=STRANGER, root=self._root, seed_directory=directory)
        iso = self._scratch / "seed.iso"
        seed.write_iso(self._spec.seed, iso, owner=self._owner.pw_uid)
        return domain_xml.kvm_domain(self._spec, stack=STRANGER, acceleration=self._acceleration, seed_iso=iso)

    def start(self) -> Timing:
        """Make the disk, start the guest; `end` takes both away."""
        begun = time.perf_counter()
        self._make_disk()
        disk_is_there = time.perf_counter()
        if self._hypervisor == Hypervisor.LXC:
            self._domain = self._connection.createXML(self._xml)
        else:
            self._domain = self._connection.defineXML(self._xml)
            self._domain.create()
        runs = time.perf_counter()
        return Timing(disk_is_there - begun, runs - disk_is_there)

    def _make_disk(self) -> None:
        watch, disk = QuietWatch(), self._spec.disks[0]
        known = SourceSpec(
            url="",
            format="gz",
            sha256=self._image["sha256"],
            stored_size_bytes=self._image["stored_size_bytes"],
            raw_size_bytes=self._image["size_bytes"],
        )
        self._store.fetch(known, watch, tag="bench")
        wanted = VolumeSpec(disk.uid, disk.format, disk.size_bytes, self._image["sha256"])
        self._volumes.build(wanted, watch, tag="bench")
        if self._hypervisor == Hypervisor.LXC:
            rootfs.ensure_shown(disk, self._spec.root_device, self._root, UID_BASE)

    def end(self) -> None:
        """Leave nothing; fine when nothing is there."""
        if self._domain is not None:
            self._domain.destroy()
            if self._hypervisor == Hypervisor.KVM:
                self._domain.undefine()
            self._domain = None
        if self._hypervisor == Hypervisor.LXC:
            rootfs.ensure_hidden(self._root)
        for path in (self._scratch / "volumes").iterdir():
            path.unlink()
