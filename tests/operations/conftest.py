"""The verbs and acts of `parts`, put back after each test, and what the tests count and skip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from operations.models import Step
from tests.operations import parts
from tests.operations.real_lanes import lane, sweeping  # noqa: F401 - fixtures
from tests.ringing import _only_rows, bells, committed_db, in_threads, quick  # noqa: F401 - fixtures


@pytest.fixture(autouse=True)
def verbs() -> Iterator[None]:
    before = dict(parts.acts)
    with parts.registered():
        yield
    for kept, initial in ((parts.acts, before), (parts.undos, {}), (parts.settled, {})):
        kept.clear()
        kept.update(initial)


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
        may_be_rung = list(waiting.values_list("pk", "attempt"))
        waiting.update(not_before=None)
        return may_be_rung

    return over
