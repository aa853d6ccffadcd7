"""What the bulk lane does for its node beside steps: empty the trash in time, and remove what killed attempts left."""

from __future__ import annotations

import threading

import structlog
from django.db import close_old_connections, connection

from core.database import unreachable
from core.errors import WorkError
from core.units import size
from hypervisor import local
from hypervisor.contract import Hypervisor
from hypervisor.free_space import mount_point, spare_bytes_missing
from hypervisor.models import Node
from hypervisor.trash import Emptied
from operations.events import note

log = structlog.get_logger()

EVERY_S = 60.0


def keep_house(node: Node) -> None:
    """Start a thread that tidies now and every minute, for the life of this process."""
    if set(node.hypervisors) - {Hypervisor.FAKE}:
        threading.Thread(target=_tidy_for_ever, args=[node], name="housekeeping", daemon=True).start()


def _tidy_for_ever(node: Node) -> None:
    pause = threading.Event()
    while True:
        _try_to_tidy(node)
        pause.wait(EVERY_S)


def _try_to_tidy(node: Node) -> None:
    """Nothing that goes wrong ends the thread: a trash that nobody empties fills the disk."""
    try:
        tidy(node)
    except WorkError as fault:
        log.warning("tidying failed; it is tried again", why=fault.message)
    except Exception as exc:
        if not unreachable(exc):
            log.exception("tidying failed in a way that nobody foresaw; it is tried again")
            return
        log.warning("the database did not answer; what was tidied is told later", error=str(exc).strip())
        connection.close()


def tidy(node: Node) -> None:
    """One round. What was deleted from the trash since the last one, by whomever, becomes events of the node."""
    for name in local.images(Hypervisor.LXC).remove_abandoned_parts():
        log.info("removed what a killed attempt left in the image store", file=name)
    place = local.node_dir()
    local.trash().empty(need_bytes=spare_bytes_missing(place), purpose=f"the file system {mount_point(place)}")
    close_old_connections()
    local.trash().tell(lambda emptied: _tell(node, emptied))


def _tell(node: Node, emptied: Emptied) -> None:
    entry = emptied.entry
    owner = f" of {entry.owner}" if entry.owner else ""
    said = f"{entry.uid}{owner} ({size(entry.size_bytes)}) was deleted from the trash of {node}: {emptied.why}"
    note("node", node.uid, "node.trash.emptied", said)
    log.info("deleted from the trash", volume=entry.uid, owner=entry.owner, why=emptied.why)
