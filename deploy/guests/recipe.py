"""What the guest images are made of: packages, modules, sizes; and the hash that tells one recipe from another."""

from __future__ import annotations

import hashlib
from pathlib import Path

HERE = Path(__file__).parent
MIB = 1 << 20
SECTOR = 512

# Bytes on a disk: first partition after 1 MiB, as every partitioning tool does it.
PARTITIONS_START = 1 * MIB
BOOT_SIZE = 24 * MIB
KVM_SIZE = 96 * MIB
LXC_SIZE = 64 * MIB

KERNEL_PACKAGE = "linux-image-cloud-amd64"  # depends on the package of the newest kernel
PROGRAM_PACKAGES = ("busybox", "dropbear-bin")  # fetched with the libraries that they depend on
# The static busybox runs the initial ram disk only: its shell prefers applets to programs, our `reboot` included.
OTHER_PACKAGES = ("busybox-static", "syslinux", "syslinux-common", "mtools")

# Loaded by the initial ram disk, with what they depend on; what the kernel has built in is left out.
MODULES = (
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "ext4",
    "virtio_net",
    "virtio_rng",
    "virtio_balloon",
    "virtio_console",
    "isofs",  # the NoCloud seed
    "button",  # the power button …
    "evdev",  # … as acpid hears it
    "pvpanic_mmio",  # tells the hypervisor of a panic
    "pvpanic_pci",
)

# `quiet` keeps the console for what the guest itself says.
KERNEL_COMMAND_LINE = "console=ttyS0 quiet"


def recipe_hash() -> str:
    """SHA-256 over every file that an image is made from, 64 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(HERE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(HERE)}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()
