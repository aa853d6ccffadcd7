"""A fleet: nodes that exist as rows, all served by this machine, whose guests are fake. For scale, and for trying out.

Their names begin with the name of this machine's node. One process per lane serves the queues of all of them, and one
observer beats for all; their guests live in one fake world, whose changes are told to the node that the guest is on.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable
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
        self._is_open = False  # the lanes work for this boot and start

    def run(self) -> None:
        driver = local.driver(Hypervisor.FAKE)
        unlisten = driver.listen(self._heard.put, lambda why: log.warning("the line to the fake world broke", why=why))
        insist(self._start, self._stop)
        insist(self._beat, self._stop)
        while not self._stop.is_set():
            self._turn()
        unlisten()

    def _start(self) -> None:
        """As a node that starts anew: a look, what ran before and is wanted is queued, then the lanes may work.

        Raises Transient while the fake hypervisor cannot be asked; the lanes stay closed until one look was whole.
        """
        self._look_at_all()
        for node in nodes().exclude(**this_start()):
            for listener in listeners.on_start:
                listener(node)
        nodes().update(**this_start())
        self._is_open = True
        log.info("the lanes of the fleet are open", nodes=len(self._nodes))

    def _turn(self) -> None:
        now = time.monotonic()
        if now - self._beat_at >= liveness.HEARTBEAT_S:
            if not self._is_open:
                insist(self._start, self._stop)
            insist(self._beat, self._stop)
        if now - self._looked_at >= liveness.OBSERVE_EVERY_S:
            insist(self._look_at_all, self._stop)
        try:
            looks = [self._heard.get(timeout=LISTEN_EVERY_S)]
            while not self._heard.empty():  # nobody else takes from it
                looks.append(self._heard.get())
        except queue.Empty:
            return
        for tell in self._placed(looks):
            insist(tell, self._stop)  # each for itself: one that cannot be asked about hides no other

    def _beat(self) -> None:
        self._beat_at = time.monotonic()
        close_old_connections()
        beaten = NodePulse.objects.filter(node__in=self._nodes)
        beaten.update(heartbeat_at=Now())
        for pulse in beaten.filter(status=NodeStatus.OFFLINE):
            liveness.beat(self._nodes[pulse.pk])

    def _placed(self, looks: list[Observation]) -> list[Callable[[], None]]:
        """What is to be told of each guest that is on one of these nodes; asked for all of them at once."""
        found: dict[str, int] = {}
        insist(lambda: found.update(listeners.nodes_of([look.uid for look in looks])), self._stop)
        on_ours = [(self._nodes.get(found.get(look.uid)), look) for look in looks]
        return [partial(self._tell, node, look) for node, look in on_ours if node]

    def _tell(self, node: Node, look: Observation) -> None:
        close_old_connections()
        for listener in listeners.on_seen:
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
