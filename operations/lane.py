"""Serve one lane in this process: a Celery worker that stops at safe points and notices when it is deaf."""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
import warnings
from functools import partial

import structlog
from celery import current_app
from celery.apps import worker as celery_worker
from celery.platforms import SecurityWarning
from celery.signals import setup_logging, task_prerun, worker_shutting_down
from celery.worker import state as worker_state
from django.db import close_old_connections
from setproctitle import setproctitle

from core import logs
from core.errors import Unreachable
from operations import timing
from operations.bell import queue_lengths, queue_name
from operations.keeper import keeper
from operations.recovery import ask_for_bells
from operations.settling import until_known

log = structlog.get_logger()

THREADS = {"ops": 4, "bulk": 2, "control": 4}
DEAF_LOOKS = 3
DEAF_EVERY_S = 5.0 * timing.SCALE
DEAF_EXIT_CODE = 75
DEAF_GRACE_S = 5.0


def serve(lane: str, nodes: list[str]) -> None:
    """Run the worker of a lane of these nodes until it is told to end; the control lane is of the node "".

    Returns when it has ended in order.
    """
    whose = nodes[0] if len(nodes) == 1 else f"{len(nodes)} nodes"
    setproctitle(f"vdc {lane} {whose}".strip())
    logs.identify(lane=lane, node=nodes[0] if len(nodes) == 1 else "")
    _quiet_celery()
    until_known(partial(ask_for_bells, nodes, lane), f"start of the lane {lane}")
    task_prerun.connect(_fresh_connections, weak=False)
    worker_shutting_down.connect(_hand_back, weak=False)
    threading.Thread(target=_watch_for_deafness, args=(nodes, lane), name="deaf-watch", daemon=True).start()
    log.info("the lane is served", nodes=len(nodes), threads=THREADS[lane])
    # Not worker_main: Celery's command line brings a shell with completion along, 9 MiB of memory.
    worker = current_app.Worker(
        queues=[queue_name(node, lane) for node in nodes],
        pool="threads",
        concurrency=THREADS[lane],
        hostname=f"{lane}.{nodes[0] or 'control'}@{platform.node()}",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    if worker.exitcode:
        raise SystemExit(worker.exitcode)
    log.info("the lane ended in order")


def _quiet_celery() -> None:
    """What Celery says goes through our lines, and what it prints past every logger is not printed."""
    setup_logging.connect(lambda **_: None, weak=False)  # whoever answers it keeps Celery from changing the loggers
    celery_worker.safe_say = lambda *_: None
    # Mounts, bridges and libvirt's socket are root's; what it warns of, pickled messages, is not accepted here.
    warnings.filterwarnings("ignore", message=r"(?s)You're running the worker with superuser", category=SecurityWarning)


def _fresh_connections(**_: object) -> None:
    """What Celery's Django fixup was good for, without closing the connection around every task."""
    close_old_connections()


def _hand_back(**_: object) -> None:
    keeper.stop_all()


def _watch_for_deafness(nodes: list[str], lane: str) -> None:
    """Deaf at several looks in a row: leave, the process manager starts us anew."""
    lanes = [(node, lane) for node in nodes]
    looks = heard = 0
    while True:
        time.sleep(DEAF_EVERY_S)
        heard_before, heard = heard, worker_state.total_count.total()
        looks = looks + 1 if heard == heard_before and _seems_deaf(lanes) else 0
        if looks >= DEAF_LOOKS:
            log.error("bells wait, slots are free, and none is heard; this worker leaves", lane=lane)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(DEAF_GRACE_S)
            os._exit(DEAF_EXIT_CODE)


def _seems_deaf(lanes: list[tuple[str, str]]) -> bool:
    """Bells wait though slots are free. A lane whose slots are all taken is full; Redis that is away says nothing."""
    try:
        bells = sum(queue_lengths(lanes).values())
    except Unreachable:
        return False
    return bells > 0 and len(worker_state.active_requests) < THREADS[lanes[0][1]] and not keeper.stopping
