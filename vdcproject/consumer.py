"""A Celery consumer that looks for a lost Redis every second; Celery's own waits up to 30 s between looks."""

from __future__ import annotations

from typing import Any

import structlog
from celery.worker import state
from celery.worker.consumer import consumer

log = structlog.get_logger()


class Consumer(consumer.Consumer):
    """Goes in `worker_consumer`."""

    def ensure_connected(self, conn: Any) -> Any:
        connected = conn.ensure_connection(
            _tell, None, interval_start=0.2, interval_step=0.2, interval_max=1, callback=state.maybe_shutdown
        )
        self.first_connection_attempt = False
        return connected


def _tell(exc: Exception, interval_s: float) -> None:
    log.warning("Redis does not answer; trying again", error=str(exc), in_s=interval_s)
