"""How the init of a container ended: the kernel's process connector tells what libvirt does not pass on."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from collections import OrderedDict
from pathlib import Path

NETLINK_CONNECTOR = 11
CN_IDX_PROC = CN_VAL_PROC = 1
LISTEN, IGNORE = 1, 2
NLMSG_DONE = 3
EXIT_EVENT = 0x80000000
# netlink header (16 bytes) and connector header (20) come before the event: what, cpu, time, then pid, tgid, exit code
WHAT_AT = 36
EVENT = struct.Struct("=IIQIII")
KEPT = 16384  # exits that are remembered, of whatever process
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
RECEIVE_BUFFER_BYTES = 1 << 20
STATUS_TIMEOUT_S = 1.0


class ExitWatch:
    """Remembers how processes ended lately; `watch` says which of them is the init of which guest."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._changed = threading.Condition()
        self._ended: OrderedDict[int, int] = OrderedDict()  # pid → wait status
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
            self._changed.wait_for(lambda: init in self._ended, timeout=STATUS_TIMEOUT_S)
            return self._ended.get(init)

    def close(self) -> None:
        self._closing = True
        _order(self._line, IGNORE)
        self._thread.join()
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
                continue
            what, _, _, pid, tgid, status = EVENT.unpack_from(message, WHAT_AT)
            if what == EXIT_EVENT and pid == tgid:
                self._note(pid, status)

    def _note(self, pid: int, status: int) -> None:
        with self._changed:
            self._ended[pid] = status
            self._ended.move_to_end(pid)
            if len(self._ended) > KEPT:
                self._ended.popitem(last=False)
            self._changed.notify_all()


def init_of(controller: int) -> int | None:
    """The process that is number 1 inside the container of a libvirt_lxc controller."""
    try:
        children = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
        for child in children:
            status = Path(f"/proc/{child}/status").read_text()
            numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
            if len(numbers) > 2 and numbers[-1] == "1":
                return int(child)
    except (FileNotFoundError, ProcessLookupError):
        pass  # the container ended while we looked
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
