"""Loop devices over a piece of a disk file, which vanish by themselves with their last user."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypervisor.contract import Transient
from hypervisor.drivers.libvirt.partitions import Extent

LOOP_CTL_GET_FREE, LOOP_CONFIGURE = 0x4C82, 0x4C0A
LO_FLAGS_AUTOCLEAR = 4
# struct loop_config: file descriptor, block size, loop_info64 (offset, size limit, flags, file name), 8 reserved words
CONFIG = struct.Struct("=II QQQQQ IIII 64s 64s 32s QQ 64x")


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop device that is in use."""

    device: str  # "/dev/loop3"
    backing_file: str
    offset: int


def in_use() -> list[Loop]:
    """All loop devices of this machine that have a backing file."""
    found = []
    for entry in Path("/sys/block").glob("loop*/loop"):
        try:
            backing_file = (entry / "backing_file").read_text().strip()
            offset = int((entry / "offset").read_text())
        except (FileNotFoundError, OSError):
            continue  # it went while we looked
        found.append(Loop(f"/dev/{entry.parent.name}", backing_file, offset))
    return found


def over(path: str) -> list[Loop]:
    """The loop devices over a file."""
    real = os.path.realpath(path)
    return [loop for loop in in_use() if loop.backing_file == real]


@contextmanager
def attached(path: str, extent: Extent) -> Iterator[str]:
    """The name of a loop device over a piece of a file, held while inside.

    A device that is there already is used again: two devices over one file, mounted both, destroy the file system.
    Whoever mounts it inside keeps it; without a user it is gone afterwards.
    """
    fd, device = _join(path, extent)
    if fd is None:
        fd, device = _attach(path, extent)
    try:
        yield device
    finally:
        os.close(fd)


def wait_until_free(path: str, *, timeout_s: float) -> None:
    """Wait until no loop device is over the file. The kernel lets go a moment after the last mount went."""
    deadline = time.monotonic() + timeout_s
    while users := over(path):
        if time.monotonic() > deadline:
            raise Transient(
                f"{users[0].device} still holds {path} {timeout_s:.0f} s after its mount was removed",
                advice=f"Something on the node uses it: see `grep {users[0].device} /proc/*/mountinfo`.",
            )
        time.sleep(0.02)


def _join(path: str, extent: Extent) -> tuple[int | None, str]:
    for loop in over(path):
        if loop.offset != extent.offset:
            raise Transient(
                f"{loop.device} is over {path} at byte {loop.offset}, not {extent.offset}",
                advice=f"Remove what uses it (`losetup -d {loop.device}`).",
            )
        fd = os.open(loop.device, os.O_RDWR | os.O_CLOEXEC)
        if loop in over(path):  # still the same one, and from now on held by us
            return fd, loop.device
        os.close(fd)
    return None, ""


def _attach(path: str, extent: Extent) -> tuple[int, str]:
    backing = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        config = CONFIG.pack(
            backing, 0, 0, 0, 0, extent.offset, extent.size, 0, 0, 0, LO_FLAGS_AUTOCLEAR,
            os.fsencode(path)[-63:], b"", b"", 0, 0,
        )  # fmt: skip
        while True:
            control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
            try:
                device = f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
            finally:
                os.close(control)
            fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:  # busy: someone was faster on this number
                    raise
                continue
            return fd, device
    finally:
        os.close(backing)
