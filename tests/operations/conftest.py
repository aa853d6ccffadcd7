"""Bells that the tests answer themselves, an engine that is not in a hurry for minutes, and threads that clean up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from operations import bell, protocol, timing
from operations.models import Step
from tests.committed import _only_rows, committed_db  # noqa: F401 - fixtures
from tests.operations import parts


class Bells(list):
    """Every bell as (step id, attempt); `answer` runs what was rung, and what that rings, as a lane would."""

    def send_task(self, task: str, *, args: list[int], queue: str, ignore_result: bool) -> None:
        self.append(tuple(args))

    def answer(self) -> None:
        while self:
            protocol.run_step(*self.pop(0))


@pytest.fixture(autouse=True)
def verbs() -> Iterator[None]:
    before = dict(parts.acts)
    with parts.registered():
        yield
    for kept, initial in ((parts.acts, before), (parts.undos, {}), (parts.settled, {})):
        kept.clear()
        kept.update(initial)


@pytest.fixture
def bells(committed_db: None, monkeypatch: pytest.MonkeyPatch) -> Bells:  # noqa: F811
    """Nothing goes to Redis: the test answers the bells. Threads see the rows, for they are committed."""
    bells = Bells()
    monkeypatch.setattr(bell, "current_app", bells)
    monkeypatch.setattr(bell, "_silent_until", 0.0)
    return bells


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become hundredths."""
    for name in ("LEASE_S", "KEEPER_TICK_S", "RETRY_FIRST_S", "RETRY_LAST_S", "SWEEP_TICK_S", "LONGEST_GAP_S", "SCALE"):
        monkeypatch.setattr(timing, name, getattr(timing, name) / 50)
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


@pytest.fixture
def statements() -> Callable[[], Iterator[list[str]]]:
    """`with statements() as ran:` keeps what was asked of the database, health checks and BEGIN left out."""

    @contextmanager
    def capture() -> Iterator[list[str]]:
        ran: list[str] = []
        with CaptureQueriesContext(connection) as captured:
            yield ran
        ran += [sql for query in captured if (sql := query["sql"]) not in ("BEGIN", "COMMIT", "SELECT 1")]

    return capture


@pytest.fixture
def pauses_are_over() -> Callable[[], list[tuple[int, int]]]:
    """Ends the pauses of all retries now; returns the steps that may be rung."""

    def over() -> list[tuple[int, int]]:
        waiting = Step.objects.filter(not_before__isnull=False, worker="", ended_at=None)
        bells = list(waiting.values_list("pk", "attempt"))
        waiting.update(not_before=None)
        return bells

    return over
