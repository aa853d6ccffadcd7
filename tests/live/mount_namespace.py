"""Steps into the mount namespace of a stack, where its mounts are seen, and back out."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_FS, CLONE_NEWNS = 0x200, 0x20000
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(namespace: Path) -> Iterator[None]:
    """Work in the mount namespace pinned at `namespace`; threads that are started inside stay there."""
    directory = Path.cwd()
    outside = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY)
    try:
        with namespace.open("rb") as pinned:
            _enter(pinned.fileno())
        os.chdir(directory)
        try:
            yield
        finally:
            _enter(outside)
            os.chdir(directory)
    finally:
        os.close(outside)


def _enter(namespace_fd: int) -> None:
    _check(_libc.unshare(CLONE_FS))  # no namespace can be entered while threads share our working directory
    _check(_libc.setns(namespace_fd, CLONE_NEWNS))


def _check(result: int) -> None:
    if result:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
