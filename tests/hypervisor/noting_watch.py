"""A Watch that keeps what it is told and stops when the test says so; for tests."""

from __future__ import annotations

import threading

from hypervisor.contract import Cancelled, CommandRecord


class NotingWatch:
    def __init__(self) -> None:
        self.reports: list[tuple[int, int | None, str]] = []
        self.commands: list[CommandRecord] = []
        self.checkpoints = 0
        self.cancelled = threading.Event()
        self.waiting = threading.Event()

    def checkpoint(self) -> None:
        self.checkpoints += 1
        if self.cancelled.is_set():
            raise Cancelled("The operation was cancelled")

    def pause(self, seconds: float) -> None:
        self.waiting.set()
        if self.cancelled.wait(seconds):
            raise Cancelled("The operation was cancelled")

    def progress(self, done: int, total: int | None, unit: str) -> None:
        self.reports.append((done, total, unit))

    def ran(self, command: CommandRecord) -> None:
        self.commands.append(command)
