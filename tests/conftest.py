"""Gives the tests a real PostgreSQL and Redis before Django reads its settings.

This happens while this file is loaded, not in a hook: the conftest files of the rooms below import models.
"""

from __future__ import annotations

import atexit
import os

import django
import pytest

from tests.cluster import Cluster

_own: Cluster | None = None
if "VDC_STACK_FILE" not in os.environ:  # a stack that is named there is used as it is
    _own = Cluster()
    atexit.register(_own.stop)
    _own.start()
    os.environ["VDC_STACK_FILE"] = str(_own.stack_file)
os.environ["DJANGO_SETTINGS_MODULE"] = "vdcproject.settings"
django.setup()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("outages")
    group.addoption("--outage-s", type=float, default=20, help="how long the replayed outages last (20)")
    group.addoption("--time-scale", type=float, default=0.1, help="of the data center that lives through them (0.1)")


# Files that hold a core for minutes, the longest first: begun early, they end while the many short ones fill the other.
LONG = (
    "tests/sweep/test_every_verb.py",
    "tests/live/test_every_verb_killed.py",
    "tests/live/test_incident.py",
    "tests/mutations",
    "tests/live",
    "tests/sweep",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(
        key=lambda item: next((rank for rank, path in enumerate(LONG) if item.nodeid.startswith(path)), len(LONG))
    )


def pytest_configure(config: pytest.Config) -> None:
    """The workers of a parallel run have servers of their own: they must not inherit those of this process."""
    if _own is not None and getattr(config.option, "numprocesses", None):
        del os.environ["VDC_STACK_FILE"], os.environ["DJANGO_SETTINGS_MODULE"]


def pytest_unconfigure(config: pytest.Config) -> None:
    if _own is not None:
        _own.stop()


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The servers of this run; `with cluster.frozen_postgresql():` makes the database mute."""
    assert _own is not None, "this needs the tests' own PostgreSQL; unset VDC_STACK_FILE"
    return _own
