"""Do one of many things so that its faults keep nobody from the others."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from core.database import unreachable

log = structlog.get_logger()


def alone(what: str, work: Callable[[], None]) -> None:
    """Nothing that goes wrong with it goes further, but for a database that is away: that concerns all."""
    try:
        work()
    except Exception as exc:
        if unreachable(exc):
            raise
        log.exception("this is left for the next round of the sweep", what=what)
