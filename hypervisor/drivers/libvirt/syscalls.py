"""The Linux calls on mounts that Python does not have; their numbers are the same on every architecture."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_CLOEXEC = 1
_FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 1, 6
_MOVE_MOUNT_F_EMPTY_PATH = 4

MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_IDMAP = 0x2, 0x4, 0x100000
MS_BIND, MS_SHARED = 0x1000, 0x100000


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def open_file_system(kind: str, device: str, *, attributes: int) -> int:
    """Open a file system without showing it anywhere; returns the descriptor of the detached mount.

    Raises OSError; its text is what the kernel said about the file system, where it said something.
    """
    context = _call(_FSOPEN, kind.encode(), _CLOEXEC)
    try:
        _call(_FSCONFIG, context, _FSCONFIG_SET_STRING, b"source", device.encode(), 0)
        _call(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _call(_FSMOUNT, context, _CLOEXEC, attributes)
    except OSError as error:
        raise OSError(error.errno, _complaint(context) or error.strerror) from error
    finally:
        os.close(context)


def map_owners(mount_fd: int, user_namespace_fd: int) -> None:
    """Show the files of a detached mount under the ids of a user namespace. OSError: this file system cannot."""
    attr = _MountAttr(attr_set=MOUNT_ATTR_IDMAP, userns_fd=user_namespace_fd)
    _call(_MOUNT_SETATTR, mount_fd, b"", _AT_EMPTY_PATH, ctypes.byref(attr), ctypes.sizeof(attr))


def show_mount(mount_fd: int, target: Path) -> None:
    """Put a detached mount at `target`."""
    _call(_MOVE_MOUNT, mount_fd, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)


def bind_shared(directory: Path) -> None:
    """Make a directory a mount of its own whose mounts and unmounts reach every copy of it in other namespaces."""
    path = os.fsencode(directory)
    _check(_libc.mount(path, path, None, ctypes.c_ulong(MS_BIND), None))
    _check(_libc.mount(None, path, None, ctypes.c_ulong(MS_SHARED), None))


def unmount(target: Path) -> None:
    _check(_libc.umount2(os.fsencode(target), 0))


def _complaint(context: int) -> str:
    """What the kernel wrote into the log of a file system context, oldest line first."""
    lines = []
    os.set_blocking(context, False)
    while True:
        try:
            lines.append(os.read(context, 1024).decode(errors="replace").removeprefix("e ").strip())
        except OSError:
            return "; ".join(lines)


def _call(number: int, *arguments: object) -> int:
    wide = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *wide))


def _check(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
