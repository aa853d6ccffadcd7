"""Put raw disks together from files alone, without mount or loop device: partition table, boot and root partition."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.guests import recipe
from deploy.guests.command import run

ROOT_LABEL = "vdc-root"
# The same times and identifiers in every build: equal trees give equal disks as far as the tools allow.
BUILD_TIME = "1700000000"
ROOT_UUID = "7d5b0f0e-2b5c-4c67-9b0e-6a0d6f1c1f01"
ENVIRONMENT = {"SOURCE_DATE_EPOCH": BUILD_TIME, "E2FSPROGS_FAKE_TIME": BUILD_TIME}


@dataclass(frozen=True)
class Partition:
    """A primary partition; start and size in bytes, `kind` is the type byte of the table."""

    start: int
    size: int
    kind: int
    active: bool = False


def make_kvm_disk(disk: Path, tree: Path, kernel: Path, initrd: Path, packages: dict[str, Path]) -> None:
    """A disk that a BIOS boots: FAT16 with syslinux, kernel and initrd, then the root file system."""
    boot = Partition(recipe.PARTITIONS_START, recipe.BOOT_SIZE, kind=0x06, active=True)
    root = _rest_of_disk(boot.start + boot.size, recipe.KVM_SIZE)
    boot_code = (packages["syslinux-common"] / "usr/lib/syslinux/mbr/mbr.bin").read_bytes()
    make_blank_disk(disk, recipe.KVM_SIZE, [boot, root], boot_code)
    _fill_boot_partition(disk, boot, kernel, initrd, packages)
    _fill_root_partition(disk, root, tree)


def make_lxc_disk(disk: Path, tree: Path) -> None:
    """A disk with one partition, the root file system; nothing on it boots."""
    root = _rest_of_disk(recipe.PARTITIONS_START, recipe.LXC_SIZE)
    make_blank_disk(disk, recipe.LXC_SIZE, [root])
    _fill_root_partition(disk, root, tree)


def make_blank_disk(disk: Path, size: int, partitions: Sequence[Partition], boot_code: bytes = b"") -> None:
    """Create the file `disk` of `size` bytes with a master boot record."""
    with disk.open("xb") as file:
        file.truncate(size)
        file.write(partition_table(partitions, boot_code))


def partition_table(partitions: Sequence[Partition], boot_code: bytes = b"") -> bytes:
    """The 512 bytes of a master boot record; addresses by cylinder are left to LBA, as all readers do today."""
    entries = b"".join(
        struct.pack(
            "<B3sB3sII",
            0x80 if partition.active else 0,
            b"\xfe\xff\xff",
            partition.kind,
            b"\xfe\xff\xff",
            partition.start // recipe.SECTOR,
            partition.size // recipe.SECTOR,
        )
        for partition in partitions
    )
    return boot_code[:440].ljust(446, b"\0") + entries.ljust(64, b"\0") + b"\x55\xaa"


def _rest_of_disk(start: int, disk_size: int) -> Partition:
    return Partition(start, disk_size - start, kind=0x83)


def _fill_boot_partition(disk: Path, boot: Partition, kernel: Path, initrd: Path, packages: dict[str, Path]) -> None:
    # syslinux calls the mtools by name; both come from the packages, nothing of the sort need be installed.
    tools = packages["mtools"] / "usr/bin"
    environment = {**ENVIRONMENT, "PATH": f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin", "MTOOLS_SKIP_CHECK": "1"}
    volume = f"{disk}@@{boot.start}"
    configuration = disk.with_suffix(".cfg")
    configuration.write_text(
        "DEFAULT linux\n"
        "PROMPT 0\n"
        "LABEL linux\n"
        "  KERNEL vmlinuz\n"
        "  INITRD initrd.gz\n"
        f"  APPEND {recipe.KERNEL_COMMAND_LINE}\n"
    )
    sectors, hidden = boot.size // recipe.SECTOR, boot.start // recipe.SECTOR
    geometry = ["-h", "16", "-s", "63", "-T", str(sectors), "-H", str(hidden)]
    run([tools / "mformat", "-i", volume, "-v", "VDC-BOOT", "-N", "76646301", *geometry, "::"], env=environment)
    for source, name in ((kernel, "vmlinuz"), (initrd, "initrd.gz"), (configuration, "syslinux.cfg")):
        run([tools / "mcopy", "-i", volume, source, f"::{name}"], env=environment)
    syslinux = packages["syslinux"] / "usr/bin/syslinux"
    run([syslinux, "--offset", str(boot.start), "--install", disk], env=environment)


def _fill_root_partition(disk: Path, root: Partition, tree: Path) -> None:
    block = 4096
    options = [
        *("-q", "-F", "-t", "ext4", "-b", str(block), "-m", "0", "-i", "8192", "-J", "size=4"),
        *("-L", ROOT_LABEL, "-U", ROOT_UUID, "-O", "^metadata_csum_seed,^orphan_file"),
        *("-E", f"hash_seed={ROOT_UUID},lazy_itable_init=0,lazy_journal_init=0,nodiscard,offset={root.start}"),
    ]
    run(["mke2fs", *options, "-d", tree, disk, str(root.size // block)], env=ENVIRONMENT)
