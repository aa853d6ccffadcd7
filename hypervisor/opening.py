"""The lanes of a node are opened by its observer after its first look, once for each boot and start of the stack."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from django.conf import settings
from django.db.models import QuerySet

from hypervisor.models import Node

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
LOOK_EVERY_S = 0.5


def this_start() -> dict[str, str]:
    """What a node's row says when its lanes have been opened for this boot and this start."""
    return {"boot_id": BOOT_ID.read_text().strip(), "start_id": settings.STACK["start_id"]}


def wait_for_open_lanes(nodes: QuerySet[Node]) -> bool:
    """Wait until the lanes of all these nodes are open; False when told to end before that."""
    stop = stop_on_signal()
    while not stop.is_set():
        if nodes.exists() and not nodes.exclude(**this_start()).exists():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            return True
        stop.wait(LOOK_EVERY_S)
    return False


def stop_on_signal() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    return stop
