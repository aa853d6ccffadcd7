"""The file system that a campaign fills: ext4 in a file, loop-mounted where a node keeps images and volumes.

It is mounted in the stack's own mount namespace only. On the host every namespace that is made meanwhile, by another
stack or by a container, would keep a copy of the mount, and with it the loop device.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.laptop import Stack
from deploy.laptop.namespaces import directory as namespaces_of
from deploy.laptop.starting import NODE_DIRS

SIZE_BYTES = 8 << 30
BALLAST = "burnin-ballast"
LEFT_BYTES = (0, 40 << 20)  # less than the reserve that the node insists on
STEP_BYTES = 4 << 20


class VolumeDisk:
    """The mounted file system, held by a descriptor; `path` works from every namespace."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")

    def fill(self, draw: float) -> None:
        """Take nearly all that is free; blocks are promised, not written."""
        numbers = os.fstatvfs(self._descriptor)
        least, most = LEFT_BYTES
        take_bytes = numbers.f_bavail * numbers.f_frsize - int(least + draw * (most - least))
        with (self.path / BALLAST).open("wb") as file:
            while take_bytes > 0:
                try:
                    os.posix_fallocate(file.fileno(), 0, take_bytes)
                    return
                except OSError:  # the file system's own tables take some of it
                    take_bytes -= STEP_BYTES

    def relieve(self) -> None:
        (self.path / BALLAST).unlink(missing_ok=True)


@contextmanager
def mounted(stack: Stack) -> Iterator[VolumeDisk]:
    """Make the file system anew and mount it over the node's directory; it goes with the stack.

    The stack's namespaces must stand, and nothing of the node may run yet.
    """
    image, target = stack.state_dir / "volume-disk.ext4", stack.state_dir / "node"
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True, capture_output=True)
    inside = ["nsenter", f"--mount={namespaces_of(stack) / 'mnt'}", "--"]
    subprocess.run([*inside, "mount", "-o", "loop", image, target], check=True)
    # The descriptor comes from a process inside: this one sees the empty directory below.
    with subprocess.Popen([*inside, "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as witness:
        descriptor = _descriptor_inside(witness.pid, target)
    try:
        disk = VolumeDisk(descriptor)
        for part in (".", *NODE_DIRS):
            (disk.path / part).mkdir(mode=0o711, exist_ok=True)
            (disk.path / part).chmod(0o711)
        yield disk
    finally:
        os.close(descriptor)


def _descriptor_inside(pid: int, target: Path) -> int:
    """The directory as that process sees it, once it has entered its namespace."""
    here = Path("/proc/self/ns/mnt").readlink()
    while Path(f"/proc/{pid}/ns/mnt").readlink() == here:
        os.sched_yield()
    return os.open(f"/proc/{pid}/root{target}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
