"""Reads the consoles of LXC guests into their log files: libvirt ignores `<log>` there, and an unread pty fills up."""

from __future__ import annotations

import errno
import os
import select
import threading
from pathlib import Path

LOG_BYTES = 2 << 20  # then the log is rotated once, to <name>.0, as virtlogd names it
READ_BYTES = 65536


class ConsoleReaders:
    """One thread per console: a slow disk under one log stops nobody else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: dict[str, _Reader] = {}
        self._end, self._ending = os.pipe2(os.O_CLOEXEC)

    def follow(self, uid: str, tty: str, log: Path) -> None:
        """Append to `log` what the guest prints, until its console closes. The same tty again: nothing to do."""
        with self._lock:
            reader = self._readers.get(uid)
            if reader is None or reader.tty != tty or not reader.is_alive():
                self._readers[uid] = _Reader(uid, tty, log, self._end)
                self._readers[uid].start()

    def close(self) -> None:
        """Stop reading; what is printed from now on waits in the ptys."""
        with self._lock:
            os.close(self._ending)
            for reader in self._readers.values():
                reader.join()
            os.close(self._end)


class _Reader(threading.Thread):
    def __init__(self, uid: str, tty: str, log: Path, end: int) -> None:
        super().__init__(name=f"console-{uid}", daemon=True)
        self.tty = tty
        self._log = LimitedLog(log)
        self._end = end

    def run(self) -> None:
        try:
            fd = os.open(self.tty, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return  # the guest ended before we came
        try:
            self._pump(fd)
        finally:
            os.close(fd)
            self._log.close()

    def _pump(self, fd: int) -> None:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(self._end, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if fd in ready:
                try:
                    text = os.read(fd, READ_BYTES)
                except OSError as error:
                    if error.errno != errno.EIO:  # EIO: the other end of the pty is closed
                        raise
                    return
                if not text:
                    return
                self._log.append(text)
            else:
                return


class LimitedLog:
    """A log file, readable by root only, that is moved to `<name>.0` when it reaches its limit."""

    def __init__(self, path: Path, limit_bytes: int = LOG_BYTES) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self._fd = -1

    def append(self, text: bytes) -> None:
        if self._fd >= 0 and os.fstat(self._fd).st_size + len(text) > self.limit_bytes:
            self.close()
            self.path.replace(f"{self.path}.0")
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(self._fd, text)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
