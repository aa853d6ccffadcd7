"""What the bulk lane does for its node beside steps: delete old trash, and what killed attempts left behind."""

from __future__ import annotations

import threading

import structlog

from core.errors import WorkError
from hypervisor import local
from hypervisor.contract import Hypervisor
from hypervisor.models import Node

log = structlog.get_logger()

EVERY_S = 600.0


def keep_house(node: Node) -> None:
    """Start a thread that tidies now and every ten minutes, for the life of this process."""
    if set(node.hypervisors) - {Hypervisor.FAKE}:
        threading.Thread(target=_tidy_for_ever, name="housekeeping", daemon=True).start()


def _tidy_for_ever() -> None:
    pause = threading.Event()
    while True:
        try:
            for name in local.images(Hypervisor.LXC).remove_abandoned_parts():
                log.info("removed what a killed attempt left in the image store", file=name)
            for entry in local.trash().empty():
                log.info("deleted from the trash", volume=entry.uid, owner=entry.owner, discarded_at=entry.discarded_at)
        except WorkError as fault:
            log.warning("tidying failed; it is tried again", why=fault.message)
        pause.wait(EVERY_S)
