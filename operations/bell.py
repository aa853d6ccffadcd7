"""The doorbell: tell a lane that a step waits. The row is the record; a bell that is not heard is rung again."""

from __future__ import annotations

import time

import structlog
from celery import current_app
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

log = structlog.get_logger()

SILENT_AFTER_FAILURE_S = 2.0

_silent_until = 0.0


def queue_name(node: str, lane: str) -> str:
    """`node.<uid>.<lane>`, or `control` for steps of no node."""
    return f"node.{node}.{lane}" if node else "control"


def ring(step_id: int, attempt: int, task: str, node: str, lane: str) -> None:
    """Put the step into its queue. A dead broker costs milliseconds, and for 2 s nothing: the sweep rings again."""
    global _silent_until
    if time.monotonic() < _silent_until:
        return
    try:
        current_app.send_task(task, args=[step_id, attempt], queue=queue_name(node, lane), ignore_result=True)
    except (OperationalError, RedisError, OSError) as exc:
        _silent_until = time.monotonic() + SILENT_AFTER_FAILURE_S
        log.warning("the bell was not heard; the sweep will ring again", step=step_id, error=str(exc))


def queue_length(node: str, lane: str) -> int:
    """How many bells wait in a queue. Raises redis.exceptions.RedisError when Redis cannot be asked."""
    with current_app.connection_for_read() as connection:
        return connection.default_channel.client.llen(queue_name(node, lane))
