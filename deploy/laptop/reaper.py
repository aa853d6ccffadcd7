"""Takes in the processes that outlive their parents, and notices their end at once.

QEMU leaves libvirtd's side when it starts. libvirtd waits for its end by looking whether the process is still there,
and one whose new parent is slow to notice is: for seconds, on machines whose first process looks seldom.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def take_in_orphans() -> None:
    """Processes below this one that lose their parent become its children."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def run(become: Callable[[], None]) -> int:
    """Runs `become` in a child until it ends, reaping whatever else ends meanwhile; returns the child's exit code.

    SIGTERM and SIGINT are passed on. The child is asked to end when this process dies.
    """
    take_in_orphans()
    child = os.fork()
    if child == 0:
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        become()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, frame: os.kill(child, got))
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == child:
            return os.waitstatus_to_exitcode(status) & 0xFF


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
