"""How the init of a container ended: read in the moment between its end and its burial by libvirt's controller.

Only who waits for an init hears of reboot(2) inside: SIGINT for power-off, SIGHUP for restart. Everybody else (process
connector, pidfd, SIGCHLD) hears SIGKILL, by which the kernel ends that init, as if somebody had killed it. It is the
process libvirt_lxc that waits, and keeps to itself what it heard; /proc shows the same status, but only until then.
So the signals of libvirt_lxc are traced: it runs undisturbed until its child ends, and then stands still while the
status is read. If the tracer dies, it goes on alone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PTRACE_CONT, PTRACE_DETACH, PTRACE_GETSIGINFO, PTRACE_SEIZE, PTRACE_LISTEN = 7, 17, 0x4202, 0x4206, 0x4208
PTRACE_EVENT_STOP = 128
WALL, WNOTHREAD = 0x40000000, 0x20000000
SIGINFO_BYTES = 128
CHILD_ENDED = struct.Struct("=iii4xI")  # signal, errno, code, pid
EXIT_CODE = 52  # field of /proc/<pid>/stat, counted from 1
STATUS_TIMEOUT_S = 2.0
LIBVIRT_NOTICES_S = 1.0  # by then libvirtd has told of the end of a controller, if it ever will
STOPS = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long


class ExitWatch:
    """One tracer per running guest. `gone(uid)` is called some time after its controller ended, on a thread of ours."""

    def __init__(self, gone: Callable[[str], None]) -> None:
        self._gone = gone
        self._lock = threading.Lock()
        self._tracers: dict[str, _Tracer] = {}

    def watch(self, uid: str, controller: int) -> None:
        """From now on the end of this guest is attended. A second call for the same controller does nothing."""
        with self._lock:
            tracer = self._tracers.get(uid)
            if tracer is None or tracer.controller != controller:
                self._tracers[uid] = _Tracer(uid, controller, self._gone)
                self._tracers[uid].start()

    def status(self, uid: str) -> int | None:
        """The wait status with which the init of a guest ended; None when nobody saw it."""
        with self._lock:
            tracer = self._tracers.get(uid)
        if tracer is None:
            return None
        tracer.ended.wait(STATUS_TIMEOUT_S)
        return tracer.status

    def is_blind(self, uid: str) -> bool:
        """Whether this node forbids tracing: then no end says anything."""
        with self._lock:
            tracer = self._tracers.get(uid)
        return tracer is not None and tracer.blind

    def forget(self, uid: str) -> None:
        """The guest ended and its status was taken."""
        with self._lock:
            self._tracers.pop(uid, None)

    def close(self) -> None:
        with self._lock:
            for tracer in self._tracers.values():
                tracer.leave()
            for tracer in self._tracers.values():
                tracer.join()
            self._tracers.clear()


class _Tracer(threading.Thread):
    """Traces the signals of one controller; the thread that begins to trace must do all of it."""

    def __init__(self, uid: str, controller: int, gone: Callable[[str], None]) -> None:
        super().__init__(name=f"exit-{uid}", daemon=True)
        self.uid = uid
        self.controller = controller
        self.status: int | None = None
        self.blind = False
        self.ended = threading.Event()
        self._gone = gone
        self._leaving = threading.Event()

    def leave(self) -> None:
        """Stop tracing: a signal that means nothing to the controller wakes this thread."""
        self._leaving.set()
        with suppress(ProcessLookupError):
            os.kill(self.controller, signal.SIGURG)

    def run(self) -> None:
        try:
            _ptrace(PTRACE_SEIZE, self.controller)
            while self._goes_on(os.waitpid(self.controller, WALL | WNOTHREAD)[1]):
                pass
        except PermissionError:
            self.blind = lives(self.controller)  # what has ended and waits for its burial cannot be traced either
        except (ProcessLookupError, ChildProcessError):
            pass  # it ended before we came
        finally:
            self.ended.set()
        if not self.blind and not self._leaving.wait(LIBVIRT_NOTICES_S):
            self._gone(self.uid)

    def _goes_on(self, wait_status: int) -> bool:
        if not os.WIFSTOPPED(wait_status):
            return False
        number = os.WSTOPSIG(wait_status)
        if wait_status >> 16 == PTRACE_EVENT_STOP:
            _ptrace(PTRACE_LISTEN if number in STOPS else PTRACE_CONT, self.controller)
            return True
        if number == signal.SIGCHLD:
            self._read_status()
        if self._leaving.is_set():
            _ptrace(PTRACE_DETACH, self.controller, 0 if number == signal.SIGURG else number)
            return False
        _ptrace(PTRACE_CONT, self.controller, number)
        return True

    def _read_status(self) -> None:
        news = ctypes.create_string_buffer(SIGINFO_BYTES)
        _ptrace(PTRACE_GETSIGINFO, self.controller, ctypes.addressof(news))
        _, _, _, child = CHILD_ENDED.unpack_from(news)
        with suppress(FileNotFoundError, ProcessLookupError):
            # The name of the program is in brackets and may hold anything; two fields end with it.
            after_name = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            self.status = int(after_name[EXIT_CODE - 3])
            self.ended.set()


def lives(pid: int) -> bool:
    """Whether a process runs; one that ended and has not been waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def init_of(controller: int) -> int | None:
    """The process that is number 1 inside the container of a libvirt_lxc controller; None when it ended."""
    try:
        children = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
        for child in children:
            status = Path(f"/proc/{child}/status").read_text()
            numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
            if len(numbers) > 2 and numbers[-1] == "1":
                return int(child)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None


def _ptrace(request: int, pid: int, data: int = 0) -> None:
    result = _libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), ctypes.c_long(0), ctypes.c_long(data))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
