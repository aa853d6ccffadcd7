"""The root file system of an LXC guest: its disk, shown as a directory under the guest's own ids."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hypervisor.contract import DiskSpec, Permanent, Transient
from hypervisor.drivers.libvirt import idmap, loops, syscalls
from hypervisor.drivers.libvirt.partitions import find_root

FILE_SYSTEM = "ext4"
BUSY_TIMEOUT_S = 10
CANNOT_MAP = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}  # old kernel, or a file system that maps no owners


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo: what is shown where."""

    target: str
    source: str
    shared: bool


def mounts() -> list[Mount]:
    """All mounts that this process sees, oldest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        _, _, _, _, target, _, *optional = fields.split(" ")
        found.append(Mount(_plain(target), _plain(rest.split(" ")[1]), any(o.startswith("shared:") for o in optional)))
    return found


def mount_at(target: Path) -> Mount | None:
    """The uppermost mount at a directory."""
    here = str(target)
    return next((mount for mount in reversed(mounts()) if mount.target == here), None)


def disk_at(target: Path) -> str:
    """The disk file whose root file system is shown at a directory; "" if there is none, or none any more."""
    there = mount_at(target)
    found = [loop.backing_file for loop in loops.in_use() if there is not None and loop.device == there.source]
    return found[0] if found and Path(found[0]).is_file() else ""


def share(directory: Path) -> None:
    """See to it that an unmount below `directory` reaches the copies that other guests' controllers hold.

    Each libvirt_lxc copies all mounts when it starts. Below a private mount these copies would stay until that guest
    stops, and keep the loop devices and disks of all its former neighbours.
    """
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    with _locked(directory):
        around = [mount for mount in mounts() if directory.is_relative_to(mount.target)]
        if not max(reversed(around), key=lambda mount: len(mount.target)).shared:
            syscalls.bind_shared(directory)


def ensure_shown(disk: DiskSpec, root_device: str, target: Path, uid_base: int) -> bool:
    """Show the disk's root file system at `target`, owned by the range at `uid_base`. False: it was there already.

    Nothing is copied and nothing on the disk changes owner where the kernel can map ids; else owners are moved once.
    """
    there = mount_at(target)
    if there is not None:
        if there.source not in {loop.device for loop in loops.over(disk.path)}:
            raise Permanent(
                f"{target} shows {there.source}, which is not the disk {disk.path}",
                advice=f"Find out what it is, then `umount {target}`.",
            )
        return False
    target.mkdir(mode=0o755, exist_ok=True)
    with Path(disk.path).open("rb") as file:
        extent = find_root(file, os.fstat(file.fileno()).st_size, root_device)
    try:
        with loops.attached(disk.path, extent) as device:
            _show(device, target, uid_base)
    except OSError as error:
        with suppress(OSError):
            target.rmdir()
        raise Permanent(
            f"the root file system of {disk.uid} ({disk.path}, {root_device or 'whole disk'})"
            f" cannot be mounted as {FILE_SYSTEM}: {error.strerror}",
            advice="Is the root device of the image right? If it worked before, check it with `e2fsck -fn`.",
        ) from error
    return True


def ensure_hidden(target: Path) -> None:
    """Take the mount at `target` away, and its loop device with it. Nothing happens when there is none."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while (there := mount_at(target)) is not None:
        backing_file = next((loop.backing_file for loop in loops.in_use() if loop.device == there.source), None)
        try:
            syscalls.unmount(target)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise Transient(
                    f"{target} cannot be unmounted: {error.strerror}",
                    advice=f"Something on the node uses files below it: see `fuser -vm {target}`.",
                ) from error
            time.sleep(0.05)
            continue
        if backing_file is not None:
            loops.wait_until_free(backing_file, timeout_s=BUSY_TIMEOUT_S)
    with suppress(FileNotFoundError):
        target.rmdir()


def _show(device: str, target: Path, uid_base: int) -> None:
    attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
    detached = syscalls.open_file_system(FILE_SYSTEM, device, attributes=attributes)
    try:
        owners_on_disk = idmap.is_shifted(Path(f"/proc/self/fd/{detached}/."))
        if not owners_on_disk:
            owners_on_disk = not _map_owners(detached, uid_base)
        syscalls.show_mount(detached, target)
    finally:
        os.close(detached)
    if owners_on_disk:
        try:
            idmap.shift_owners(target, uid_base)
        except BaseException:
            syscalls.unmount(target)
            raise


def _map_owners(detached: int, uid_base: int) -> bool:
    with idmap.user_namespace(uid_base) as user_namespace_fd:
        try:
            syscalls.map_owners(detached, user_namespace_fd)
        except OSError as error:
            if error.errno in CANNOT_MAP:
                return False
            raise
    return True


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _plain(field: str) -> str:
    """Undo the octal escapes of mountinfo for space, tab, newline and backslash."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(escape, character)
    return field
