"""File locks of a node: one attempt at a time works on a subject, and one process serves a lane.

flock(2) on a descriptor of its own, so that threads of one process are kept apart too.
A lock dies with its process: nothing is ever left locked.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from django.conf import settings

log = structlog.get_logger()

LOOK_AGAIN_S = 0.2


def _folder() -> Path:
    folder = Path(settings.STACK["run_dir"]) / "locks"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextmanager
def subject_lock(uid: str, pause: Callable[[float], None]) -> Iterator[None]:
    """Hold the lock of a subject; wait with `pause`, which raises when the wait is no longer wanted."""
    descriptor = os.open(_folder() / f"subject-{uid}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _taken(descriptor):
            log.info("an earlier attempt still works on it; waiting for its end", subject=uid)
            while not _taken(descriptor):
                pause(LOOK_AGAIN_S)
            log.info("the earlier attempt has ended", subject=uid)
        yield
    finally:
        os.close(descriptor)


class HeldElsewhere(SystemExit):
    """Another process serves this lane: end with a sentence that names it."""


def hold_for_life(name: str) -> int:
    """Take the lock `name` ("hn-….ops") until this process ends; HeldElsewhere names the holder."""
    descriptor = os.open(_folder() / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _taken(descriptor):
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        raise HeldElsewhere(f"{name} is served already by process {holder or 'unknown'}; this one ends.")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
