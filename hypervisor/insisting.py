"""How observers write what they saw: until the database has answered, and nothing while a hypervisor is mute."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from django.db import connection

from core.database import DATABASE_ERRORS, unreachable
from core.errors import WorkError
from operations import timing

log = structlog.get_logger()

PAUSE_AWAY_S = 1 * timing.SCALE


def insist(work: Callable[[], None], stop: threading.Event) -> None:
    """Do it until the database has answered, or until `stop`; a hypervisor that cannot be asked is asked later."""
    while True:
        try:
            work()
            return
        except WorkError as fault:
            log.warning("it cannot be observed now; nothing is concluded", why=fault.message)
            return
        except DATABASE_ERRORS as exc:
            if not unreachable(exc):
                raise
            log.warning("the database did not answer; what was seen is kept", error=str(exc).strip())
            connection.close()
        if stop.wait(PAUSE_AWAY_S):
            return
