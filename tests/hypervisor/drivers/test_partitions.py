"""Finding the root partition on crafted disks, sound and broken."""

from __future__ import annotations

import io
import struct
import uuid

import pytest

from hypervisor.contract import Permanent
from hypervisor.drivers.libvirt.partitions import Extent, find_root

MIB = 1 << 20
DISK_BYTES = 64 * MIB
LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


def mbr(*entries: tuple[int, int, int]) -> bytes:
    """A boot sector with entries (kind, first sector, sectors)."""
    table = b"".join(struct.pack("<B3xB3xII", 0, *entry) for entry in entries)
    return bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa"


def gpt(*entries: tuple[int, int], entry_bytes: int = 128, signature: bytes = b"EFI PART") -> bytes:
    """A disk's first sectors with a GPT with entries (first sector, last sector); (0, 0) is an unused one."""
    header = signature.ljust(72, b"\0") + struct.pack("<QII", 2, 128, entry_bytes)
    table = b"".join(
        struct.pack("<16s16sQQ", LINUX.bytes_le if last else bytes(16), uuid.uuid4().bytes, first, last).ljust(
            entry_bytes, b"\0"
        )
        for first, last in entries
    )
    return mbr((0xEE, 1, 0xFFFFFFFF)) + header.ljust(512, b"\0") + table.ljust(128 * entry_bytes, b"\0")


def root_of(disk: bytes, root_device: str, disk_bytes: int = DISK_BYTES) -> Extent:
    return find_root(io.BytesIO(disk), disk_bytes, root_device)


def test_no_root_device_means_the_whole_disk() -> None:
    assert root_of(b"no table at all", "") == Extent(0, DISK_BYTES)


def test_a_primary_partition_is_found_by_its_number() -> None:
    disk = mbr((0x83, 2048, 2048), (0, 0, 0), (0x82, 8192, 4096))
    assert root_of(disk, "partition:1") == Extent(MIB, MIB)
    assert root_of(disk, "partition:3") == Extent(4 * MIB, 2 * MIB)


def test_a_partition_of_a_gpt_is_found_by_its_number() -> None:
    disk = gpt((2048, 4095), (0, 0), (4096, 131071))
    assert root_of(disk, "partition:3") == Extent(2 * MIB, 62 * MIB)


def test_entries_of_a_gpt_may_be_longer_than_usual() -> None:
    assert root_of(gpt((2048, 4095), (4096, 8191), entry_bytes=256), "partition:2") == Extent(2 * MIB, 2 * MIB)


@pytest.mark.parametrize(
    ("disk", "root_device", "complaint"),
    [
        (mbr((0x83, 2048, 2048)), "partition:2", r"no partition 2 \(it has: 1\)"),
        (mbr((0x05, 2048, 2048)), "partition:1", "no partition 1"),
        (mbr((0x83, 2048, 0)), "partition:1", "no partition 1"),
        (bytes(512), "partition:1", "no partition table"),
        (b"short", "partition:1", "no partition table"),
        (mbr((0x83, 2048, 1 << 20)), "partition:1", "outside of the disk"),
        (mbr((0x83, 0, 2048)), "partition:1", "outside of the disk"),
        (gpt((2048, 1 << 40)), "partition:1", "outside of the disk"),
        (gpt((4096, 2048)), "partition:1", "outside of the disk"),
        (gpt((2048, 4095), signature=b"EFI TORN"), "partition:1", "damaged"),
        (gpt((2048, 4095), entry_bytes=128)[:592] + bytes(512), "partition:1", "makes no sense"),
        (mbr((0x83, 2048, 2048)), "partition:0", "not understood"),
        (mbr((0x83, 2048, 2048)), "partition:one", "not understood"),
        (mbr((0x83, 2048, 2048)), "/dev/sda1", "not understood"),
    ],
)
def test_nonsense_is_refused_with_a_sentence(disk: bytes, root_device: str, complaint: str) -> None:
    with pytest.raises(Permanent, match=complaint) as refusal:
        root_of(disk, root_device)
    assert refusal.value.advice
