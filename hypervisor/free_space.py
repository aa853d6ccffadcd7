"""Room on the file systems of a node: asked before work, explained when it runs out."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from hypervisor.contract import Permanent

# What stays free for receipts, logs and the database beside us.
RESERVE_BYTES = 64 * 1024**2

# What a node tries to keep free by emptying its trash: this part of the file system, and never more than so many bytes.
SPARE_PART = 0.05
SPARE_BYTES = 1024**3

OUT_OF_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def free_bytes(directory: Path) -> int:
    """Bytes that a new file in the directory may take."""
    numbers = os.statvfs(directory)
    return numbers.f_bavail * numbers.f_frsize


def spare_bytes_missing(directory: Path) -> int:
    """How many bytes should come free on the file system of the directory; 0 when there is enough."""
    numbers = os.statvfs(directory)
    wanted = min(int(numbers.f_blocks * numbers.f_frsize * SPARE_PART), SPARE_BYTES)
    return max(wanted - numbers.f_bavail * numbers.f_frsize, 0)


def mount_point(path: Path) -> Path:
    """The mount point of the file system that holds the path."""
    path = path.resolve()
    while not path.is_mount():
        path = path.parent
    return path


def require_room(directory: Path, need_bytes: int, purpose: str, reclaim: Callable[[int], object] | None) -> None:
    """Permanent unless the directory has room for `need_bytes`.

    `reclaim` is asked once to free the bytes that are missing before we give up.
    """
    missing = need_bytes + RESERVE_BYTES - free_bytes(directory)
    if missing > 0 and reclaim is not None:
        reclaim(missing)
        missing = need_bytes + RESERVE_BYTES - free_bytes(directory)
    if missing > 0:
        raise Permanent(
            f"The file system {mount_point(directory)} has {free_bytes(directory):,} bytes free; "
            f"{purpose} needs {need_bytes:,} more, and {RESERVE_BYTES:,} stay in reserve",
            advice=f"Free {missing:,} bytes there, or use a node with more room.",
        )


def disk_fault(fault: OSError, path: Path, purpose: str) -> Permanent:
    """An OSError of writing below `path`, as a sentence."""
    where = mount_point(path if path.is_dir() else path.parent)
    if fault.errno in OUT_OF_ROOM:
        return Permanent(
            f"The file system {where} ran out of room while {purpose} ({os.strerror(fault.errno)})",
            advice=f"Free some space on {where}, then retry; what was written half has been removed.",
        )
    return Permanent(
        f"The file system {where} failed while {purpose}: {fault.strerror or fault}",
        advice="Look at the kernel's log of the node (dmesg) and the mount options, then retry.",
    )
