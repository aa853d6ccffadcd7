"""Fixtures for tests of operations: bells that the test answers, hurried clocks, and threads that clean up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from operations import bell, protocol, timing
from tests.committed import _only_rows, committed_db  # noqa: F401 - fixtures


class Bells(list):
    """Every bell as (step id, attempt); `answer` runs what was rung, and what that rings, as a lane would."""

    def send_task(self, task: str, *, args: list[int], queue: str, ignore_result: bool) -> None:
        self.append(tuple(args))

    def answer(self) -> None:
        while self:
            protocol.run_step(*self.pop(0))


@pytest.fixture
def bells(committed_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bells]:  # noqa: F811
    """Nothing goes to Redis: the test answers the bells. Threads see the rows, for they are committed."""
    bells = Bells()
    monkeypatch.setattr(bell, "current_app", bells)
    monkeypatch.setattr(bell, "_silent_until", 0.0)
    monkeypatch.setattr(timing, "KEEPER_TICK_S", 0.05)
    yield bells
    for thread in threading.enumerate():  # its connection must be gone before the database is
        if thread.name == "keeper":
            thread.join(30)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become hundredths."""
    for name in ("LEASE_S", "RETRY_FIRST_S", "RETRY_LAST_S", "SWEEP_TICK_S", "LONGEST_GAP_S", "SCALE"):
        monkeypatch.setattr(timing, name, getattr(timing, name) / 50)
    monkeypatch.setattr(timing, "KEEPER_TICK_S", 0.02)
    monkeypatch.setattr(protocol, "PAUSE_UNREACHABLE_S", 0.02)


@pytest.fixture
def in_threads() -> Iterator[Callable]:
    """`in_threads(work, …)` starts each function in a thread with a database connection of its own; futures."""

    def closing(work: Callable[[], object]) -> object:
        try:
            return work()
        finally:
            connection.close()

    with ThreadPoolExecutor(32) as pool:
        yield lambda *works: [pool.submit(closing, work) for work in works]
