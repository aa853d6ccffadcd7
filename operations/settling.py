"""Say what was done until it is known to be said: failing to say only delays."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from django.db import connection

from core.database import DATABASE_ERRORS, unreachable
from operations import timing

log = structlog.get_logger()

FIRST_PAUSE_S = 0.2 * timing.SCALE
LONGEST_PAUSE_S = 5 * timing.SCALE

T = TypeVar("T")


def until_known(write: Callable[[], T], what: str) -> T:
    """Call `write` (one transaction, harmless to repeat) until the database has answered.

    Only faults that mean "nobody answered" are repeated; every other one goes up at once.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return write()
        except DATABASE_ERRORS as exc:
            if not unreachable(exc):
                raise
            log.warning("the database did not answer; the word waits, the work is safe", what=what, error=str(exc))
        connection.close()  # never trusted again
        time.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - spreads retries, hides nothing
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
