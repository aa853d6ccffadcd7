"""Callers of two accounts, in a data center of one node that nobody serves."""

from __future__ import annotations

import pytest

from hypervisor.models import Node
from tests.api import world
from tests.callers import caller, ours, staff, theirs

__all__ = ["caller", "ours", "staff", "theirs"]


@pytest.fixture(autouse=True)
def node(request: pytest.FixtureRequest) -> Node | None:
    """The node of the data center, with its network and its backup storage."""
    if "db" not in request.fixturenames and "transactional_db" not in request.fixturenames:
        return None
    return world.data_center()
