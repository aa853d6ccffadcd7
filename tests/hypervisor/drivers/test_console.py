"""Consoles are read into logs that stay small."""

from __future__ import annotations

import os
import time
from pathlib import Path

from hypervisor.drivers.libvirt.console import ConsoleReaders, LimitedLog

PATIENCE_S = 20


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not log.exists() or text not in log.read_text():
        assert time.monotonic() < deadline, f"{text} did not arrive"
        time.sleep(0.01)


def test_a_log_that_reaches_its_limit_is_rotated_once(tmp_path: Path) -> None:
    log = LimitedLog(tmp_path / "console.log", limit_bytes=100)
    for number in range(12):
        log.append(f"line {number:02} {'.' * 21}\n".encode())
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["console.log", "console.log.0"]
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    assert "line 11" in (tmp_path / "console.log").read_text()


def test_what_waited_in_the_pty_is_read_and_reading_can_be_taken_up_again(tmp_path: Path) -> None:
    master, slave = os.openpty()
    tty, log = os.ttyname(slave), tmp_path / "console.log"
    try:
        os.write(master, b"first line\n")
        first = ConsoleReaders()
        first.follow("i-1", tty, log)
        first.follow("i-1", tty, log)
        wait_for(log, "first line")
        first.close()
        os.write(master, b"second line\n")
        second = ConsoleReaders()
        second.follow("i-1", tty, log)
        wait_for(log, "second line")
        second.close()
    finally:
        os.close(slave)
        os.close(master)
    assert log.read_text().count("first line") == 1
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_console_that_is_gone_disturbs_nobody(tmp_path: Path) -> None:
    readers = ConsoleReaders()
    readers.follow("i-1", str(tmp_path / "no-such-tty"), tmp_path / "console.log")
    readers.close()
    assert list(tmp_path.iterdir()) == []
