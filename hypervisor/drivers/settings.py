"""What a driver must be told once about the node and the stack that it works for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """Where a node keeps its things and how it reaches its hypervisors. The same for all drivers of a node."""

    stack: str  # name of the stack: domains of other stacks are foreign
    node_dir: Path  # /var/lib/<stack>/node: guests/, mounts/ and consoles/ are below it
    libvirt_socket: Path = Path("/run/libvirt/libvirt-sock")
    acceleration: str = "tcg"  # "kvm" where a Linux kernel was seen to boot under it, else "tcg"
    qemu_user: str = "libvirt-qemu"  # who QEMU runs as: must be able to read the seed of a KVM guest
