"""Callers of the doors, and an operator among them."""

from __future__ import annotations

import pytest

from accounts.models import Role
from tests.callers import caller, ours, staff
from tests.committed import _only_rows, committed_db

__all__ = ["_only_rows", "caller", "committed_db", "ours", "staff"]


@pytest.fixture
def operator(caller, ours, staff):
    return caller(ours, Role.VIEWER, operator=True, issued_by=staff)
