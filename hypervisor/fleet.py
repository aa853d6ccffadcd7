"""A fleet: nodes that exist as rows, all served by this machine, whose guests are fake. For scale, and for trying out.

Their names begin with the name of this machine's node. One process per lane serves the queues of all of them, and one
observer beats for all; their guests live in one fake world, whose changes are told to the node that the guest is on.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from functools import partial

import structlog
from django.conf import settings
from django.db import close_old_connections
from django.db.models import QuerySet
from django.db.models.functions import Now

from hypervisor import listeners, liveness, local
from hypervisor.contract import Hypervisor, Observation
from hypervisor.insisting import insist
from hypervisor.models import Node, NodePulse, NodeRoom, NodeStatus
from hypervisor.opening import this_start

log = structlog.get_logger()

VCPUS = 64
MEMORY_MIB = 256 * 1024
DISK_BYTES = 16 << 40
LISTEN_EVERY_S = 0.5


def nodes() -> QuerySet[Node]:
    """The nodes of this machine's fleet."""
    return Node.objects.filter(name__startswith=f"{settings.STACK['node_name']}.fake-").order_by("id")


def join(count: int) -> list[Node]:
    """Have at least `count` of them; those that are there already stay as they are."""
    for number in range(1, count + 1):
        node, is_new = Node.objects.get_or_create(
            name=f"{settings.STACK['node_name']}.fake-{number}",
            defaults={
                "arch": "x86_64",
                "hypervisors": [Hypervisor.FAKE.value],
                "vcpus": VCPUS,
                "memory_mib": MEMORY_MIB,
                "disk_bytes": DISK_BYTES,
            },
        )
        if is_new:
            NodeRoom.objects.create(node=node)
            NodePulse.objects.create(node=node)
    return list(nodes())


class FleetObserver:
    """Watches all nodes of the fleet until `stop` is set: the same duties as a node's observer, in one loop."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._nodes = {node.pk: node for node in nodes()}
        self._heard: queue.SimpleQueue[Observation] = queue.SimpleQueue()
        self._beat_at = self._looked_at = 0.0

    def run(self) -> None:
        driver = local.driver(Hypervisor.FAKE)
        unlisten = driver.listen(self._heard.put, lambda why: log.warning("the line to the fake world broke", why=why))
        for work in (self._look_at_all, self._start, self._beat):
            insist(work, self._stop)
        while not self._stop.is_set():
            self._turn()
        unlisten()

    def _start(self) -> None:
        """As a node that starts anew: what ran before and is wanted is queued, then the lanes may work."""
        for node in nodes().exclude(**this_start()):
            for listener in listeners.on_start:
                listener(node)
        nodes().update(**this_start())
        log.info("the lanes of the fleet are open", nodes=len(self._nodes))

    def _turn(self) -> None:
        now = time.monotonic()
        if now - self._beat_at >= liveness.HEARTBEAT_S:
            insist(self._beat, self._stop)
        if now - self._looked_at >= liveness.OBSERVE_EVERY_S:
            insist(self._look_at_all, self._stop)
        try:
            looks = [self._heard.get(timeout=LISTEN_EVERY_S)]
            while not self._heard.empty():  # nobody else takes from it
                looks.append(self._heard.get())
        except queue.Empty:
            return
        insist(partial(self._tell, looks), self._stop)

    def _beat(self) -> None:
        self._beat_at = time.monotonic()
        close_old_connections()
        beaten = NodePulse.objects.filter(node__in=self._nodes)
        beaten.update(heartbeat_at=Now())
        for pulse in beaten.filter(status=NodeStatus.OFFLINE):
            liveness.beat(self._nodes[pulse.pk])

    def _tell(self, looks: list[Observation]) -> None:
        close_old_connections()
        placed = listeners.nodes_of([look.uid for look in looks])
        for look in looks:
            node = self._nodes.get(placed.get(look.uid))
            for listener in listeners.on_seen if node else ():
                listener(node, look)

    def _look_at_all(self) -> None:
        self._looked_at = time.monotonic()
        close_old_connections()
        looks = local.driver(Hypervisor.FAKE).observe_all()
        placed = listeners.nodes_of([look.uid for look in looks])
        seen_on: dict[int | None, list[Observation]] = defaultdict(list)
        for look in looks:
            seen_on[placed.get(look.uid)].append(look)
        for node in self._nodes.values():
            for listener in listeners.on_seen_all:
                listener(node, seen_on[node.pk])
        NodePulse.objects.filter(node__in=self._nodes).update(observed_at=Now())
