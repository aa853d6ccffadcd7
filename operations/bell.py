"""The doorbell: tell a lane that a step waits. The row is the record; a bell that is not heard is rung again."""

from __future__ import annotations

import time
from collections.abc import Collection

import structlog
from celery import current_app
from kombu.exceptions import OperationalError
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from core.errors import Unreachable
from operations import timing

log = structlog.get_logger()

SILENT_AFTER_FAILURE_S = 2 * timing.SCALE
QUICK_S = 1.0
REDIS_ERRORS = (OperationalError, RedisError, OSError)  # kombu wraps what it tried again, and only that

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
    except REDIS_ERRORS as exc:
        _silent_until = time.monotonic() + SILENT_AFTER_FAILURE_S
        log.warning("the bell was not heard; the sweep will ring again", step=step_id, error=str(exc))


def is_heard() -> bool:
    """Whether Redis answers now: one question, within a second. Celery's own lines ask again for six."""
    url = current_app.conf.broker_url.replace("redis+socket://", "unix://", 1)
    once = Retry(NoBackoff(), 0)
    try:
        with Redis.from_url(url, socket_timeout=QUICK_S, socket_connect_timeout=QUICK_S, retry=once) as line:
            return bool(line.ping())
    except REDIS_ERRORS:
        return False


def queue_lengths(lanes: Collection[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """How many bells wait in the queue of each (node, lane). Raises Unreachable when Redis cannot be asked."""
    try:
        # A channel of our own: kombu's default one tries for 6 s before it says that Redis is away.
        with current_app.connection_for_read() as connection, connection.channel() as channel:
            return {lane: channel.client.llen(queue_name(*lane)) for lane in lanes}
    except REDIS_ERRORS as exc:
        raise Unreachable(f"Redis cannot be asked: {exc}") from exc
