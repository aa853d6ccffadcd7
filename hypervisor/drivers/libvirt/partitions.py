"""Where a partition lies on a raw disk, read from its MBR or GPT; pure but for reading the first sectors."""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from typing import BinaryIO

from hypervisor.contract import Permanent

SECTOR = 512
GPT_PROTECTIVE = 0xEE
EXTENDED = {0x05, 0x0F, 0x85}


@dataclass(frozen=True, slots=True)
class Extent:
    """A piece of a disk, in bytes."""

    offset: int
    size: int


def find_root(disk: BinaryIO, disk_bytes: int, root_device: str) -> Extent:
    """The piece of the disk that `root_device` names: "" is all of it, "partition:1" its first partition.

    Raises Permanent with a sentence when there is no such partition or it lies outside of the disk.
    """
    if not root_device:
        return Extent(0, disk_bytes)
    kind, _, number = root_device.partition(":")
    if kind != "partition" or not number.isdecimal() or int(number) < 1:
        raise Permanent(
            f'root device "{root_device}" is not understood', advice='Say "" for the whole disk, or "partition:1".'
        )
    partitions = read_partitions(disk, disk_bytes)
    try:
        return partitions[int(number)]
    except KeyError:
        there = ", ".join(map(str, sorted(partitions))) or "none"
        raise Permanent(
            f"the disk has no partition {number} (it has: {there})",
            advice="Correct the root device of the image.",
        ) from None


def read_partitions(disk: BinaryIO, disk_bytes: int) -> dict[int, Extent]:
    """All partitions by number: primary ones of an MBR, or those of a GPT. Sectors are 512 bytes."""
    disk.seek(0)
    boot = disk.read(SECTOR)
    if len(boot) < SECTOR or boot[510:512] != b"\x55\xaa":
        raise Permanent(
            "the disk has no partition table",
            advice='If it holds a bare file system, set the root device of the image to "".',
        )
    entries = [_mbr_entry(boot[446 + 16 * index : 462 + 16 * index]) for index in range(4)]
    if any(kind == GPT_PROTECTIVE for kind, _, _ in entries):
        return _read_gpt(disk, disk_bytes)
    return {
        number: _within(first, count, disk_bytes, number)
        for number, (kind, first, count) in enumerate(entries, start=1)
        if kind and kind not in EXTENDED and count
    }


def _mbr_entry(raw: bytes) -> tuple[int, int, int]:
    kind, first, count = struct.unpack("<4xB3xII", raw)
    return kind, first, count


def _read_gpt(disk: BinaryIO, disk_bytes: int) -> dict[int, Extent]:
    disk.seek(SECTOR)
    header = disk.read(SECTOR)
    if header[:8] != b"EFI PART":
        raise Permanent("the disk says that it has a GPT, but its header is damaged", advice="Import the image again.")
    table_sector, entry_count, entry_bytes = struct.unpack_from("<QII", header, 72)
    if not 1 <= entry_count <= 1024 or not 128 <= entry_bytes <= 4096 or table_sector * SECTOR >= disk_bytes:
        raise Permanent("the GPT of the disk makes no sense", advice="Import the image again.")
    disk.seek(table_sector * SECTOR)
    table = disk.read(entry_count * entry_bytes)
    partitions = {}
    for number in range(1, len(table) // entry_bytes + 1):
        kind, first, last = struct.unpack_from("<16s16xQQ", table, (number - 1) * entry_bytes)
        if uuid.UUID(bytes_le=kind).int:
            partitions[number] = _within(first, last - first + 1, disk_bytes, number)
    return partitions


def _within(first: int, count: int, disk_bytes: int, number: int) -> Extent:
    extent = Extent(first * SECTOR, count * SECTOR)
    if first < 1 or count < 1 or extent.offset + extent.size > disk_bytes:
        raise Permanent(
            f"partition {number} lies outside of the disk: sectors {first} to {first + count - 1},"
            f" the disk has {disk_bytes // SECTOR}",
            advice="The image is truncated or its partition table is wrong.",
        )
    return extent
