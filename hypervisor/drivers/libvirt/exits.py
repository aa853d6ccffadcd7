"""How the init of a container ended: the kernel's process connector tells what libvirt keeps for itself."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

NETLINK_CONNECTOR = 11
CN_IDX_PROC = CN_VAL_PROC = 1
LISTEN, IGNORE = 1, 2
NLMSG_DONE = 3
EXIT_EVENT = 0x80000000
# Netlink header (16 bytes) and connector header (20) come first; then what, cpu, time in ns, and of the process:
# pid, thread group, exit status, exit signal, parent, thread group of the parent
WHAT_AT = 36
EVENT = struct.Struct("=IIQ6I")
KEPT = 16384  # exits that are remembered, of whatever process
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
RECEIVE_BUFFER_BYTES = 1 << 20
STATUS_TIMEOUT_S = 2.0
# How long before the end of init the caller of reboot(2) may have ended
CALL_AMONG_OTHERS_NS = 20_000_000
CALL_ALONE_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a process; `status` as wait(2) would tell it."""

    at_ns: int
    pid: int
    parent: int
    status: int


class ExitWatch:
    """Remembers which processes ended lately; `watch` says which of them is the init of which guest."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._changed = threading.Condition()
        self._exits: deque[Exit] = deque(maxlen=KEPT)
        self._inits: dict[str, int] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._read, name="process-exits", daemon=True)
        self._thread.start()

    @classmethod
    def opened(cls) -> ExitWatch | None:
        """A running watch, or None on a kernel without process connector or without the right to listen to it."""
        try:
            line = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_CONNECTOR)
        except OSError:
            return None
        try:
            _let_exits_through(line)
            line.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
            line.bind((0, CN_IDX_PROC))
            _order(line, LISTEN)
        except OSError:
            line.close()
            return None
        return cls(line)

    def watch(self, uid: str, init: int) -> None:
        """The init of guest `uid` is the process `init`; a later call replaces it."""
        with self._changed:
            self._inits[uid] = init

    def status(self, uid: str) -> int | None:
        """The wait status with which the init of a guest ended; None when it was not seen to end."""
        with self._changed:
            init = self._inits.get(uid)
            if init is None:
                return None
            self._changed.wait_for(lambda: any(seen.pid == init for seen in self._exits), timeout=STATUS_TIMEOUT_S)
            return told_to_parent(init, self._exits)

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        _order(self._line, IGNORE)
        self._line.close()

    def _read(self) -> None:
        self._line.settimeout(0.5)
        while not self._closing:
            try:
                message = self._line.recv(4096)
            except TimeoutError:
                continue
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # more processes ended than we could read of: some are lost
                    continue
                raise
            if len(message) < WHAT_AT + EVENT.size:
                continue  # the answer to our order
            what, _, at_ns, pid, group, status, _, _, parent = EVENT.unpack_from(message, WHAT_AT)
            if what == EXIT_EVENT and pid == group:
                with self._changed:
                    self._exits.append(Exit(at_ns, pid, parent, status))
                    self._changed.notify_all()


def told_to_parent(init: int, exits: Iterable[Exit]) -> int | None:
    """The status that the parent of a container's init was told; None when its end is not among `exits`.

    Only the parent hears of reboot(2): SIGINT for power-off. Everybody else hears SIGKILL, by which the kernel ends
    the init, as if somebody had killed it; unless init called it itself, which reads as exit code 0.
    What gives the call away is the caller: it exits with 0 just before all others in the container are killed. After
    an orderly shutdown no others are left and the caller may take its time; of a living container only an exit within
    milliseconds counts, since processes may end in order at any time.
    """
    burst = list(exits)
    end = next((seen for seen in reversed(burst) if seen.pid == init), None)
    if end is None or end.status != signal.SIGKILL:
        return None if end is None else end.status
    members = _members(end, burst)
    kills = [seen.at_ns for seen in members if seen.status == signal.SIGKILL]
    since_ns = min(kills) - CALL_AMONG_OTHERS_NS if kills else end.at_ns - CALL_ALONE_NS
    called = any(seen.status == 0 and seen.at_ns >= since_ns for seen in members)
    return signal.SIGINT if called else signal.SIGKILL


def _members(end: Exit, burst: list[Exit]) -> list[Exit]:
    """The processes that ended with a container: those whose parents lead to its init, and lately those without parent.

    Without parent are those that the dying init no longer waits for; of strangers there are few in so short a time.
    """
    before = [seen for seen in burst if end.at_ns - CALL_ALONE_NS <= seen.at_ns <= end.at_ns and seen is not end]
    members = [seen for seen in before if seen.parent == 0 and seen.at_ns >= end.at_ns - CALL_AMONG_OTHERS_NS]
    known = {end.pid, *(seen.pid for seen in members)}
    while joined := [seen for seen in before if seen.parent in known and seen.pid not in known]:
        known.update(seen.pid for seen in joined)
        members += joined
    return members


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


def _order(line: socket.socket, what: int) -> None:
    operation = struct.pack("=I", what)
    connector = struct.pack("=IIIIHH", CN_IDX_PROC, CN_VAL_PROC, 0, 0, len(operation), 0) + operation
    line.send(struct.pack("=IHHII", 16 + len(connector), NLMSG_DONE, 0, 0, os.getpid()) + connector)


def _let_exits_through(line: socket.socket) -> None:
    """Let the kernel drop the news of forks and execs: many, and of no use here."""
    load_word, jump_if_equal, leave = 0x20, 0x15, 0x06
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (load_word, 0, 0, WHAT_AT),
            (jump_if_equal, 0, 1, socket.htonl(EXIT_EVENT)),  # the filter reads words in network order
            (leave, 0, 0, 0xFFFFFFFF),
            (leave, 0, 0, 0),
        )
    )
    buffer = ctypes.create_string_buffer(program, len(program))
    line.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 4, ctypes.addressof(buffer)))
