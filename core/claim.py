"""Change a row only if it is still what we expect: the one idiom behind steps, states, room and addresses."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet


def claim(expected: QuerySet, **changes: Any) -> bool:
    """Apply `changes` if the expected row is still there; False: someone was faster."""
    return expected.update(**changes) == 1
