"""The observer of a node: its eyes and its pulse, in a process of its own that no step can hold up.

    start ──► the node's lock and lease ──► networks whole ──► first look ──► guests wanted running are queued
          ──► lanes open ──► then for ever: events at once, heartbeat every 5 s, a look at everything every 60 s

What a libvirt thread hears is put into a queue; one loop writes it. When the database is away the queue waits.
"""

from __future__ import annotations

import os
import platform
import queue
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import structlog
from django.db import close_old_connections
from django.db.models import Q
from django.db.models.functions import Now

from core.claim import claim
from core.errors import WorkError
from hypervisor import listeners, liveness, local
from hypervisor.contract import Observation
from hypervisor.drivers.base import Driver
from hypervisor.insisting import insist
from hypervisor.models import Node, NodePulse
from hypervisor.opening import this_start
from operations import timing
from operations.events import note
from operations.locks import HeldElsewhere

log = structlog.get_logger()

LISTEN_AGAIN_S = 1 * timing.SCALE


class Observer:
    """Watches this machine's node until `stop` is set."""

    def __init__(self, node: Node, stop: threading.Event) -> None:
        self._node = node
        self._stop = stop
        self._heard: queue.SimpleQueue[Observation | None] = queue.SimpleQueue()
        self._deaf: dict[str, float] = {}  # hypervisors that cannot be listened to, and when to try again
        self._unlisten: dict[str, Callable[[], None]] = {}
        self._beat_at = self._looked_at = 0.0
        self._has_looked = False  # at all guests, once at least
        self._is_open = False  # its lanes work for this boot and start
        self._me = f"{platform.node()}:{os.getpid()}"

    def run(self) -> None:
        insist(self._hold_node, self._stop)
        for hypervisor in self._node.hypervisors:
            self._listen(hypervisor)
        insist(self._tend, self._stop)
        insist(self._look_at_all, self._stop)
        insist(self._start_if_new, self._stop)
        insist(self._beat, self._stop)
        while not self._stop.is_set():
            self._turn()
        for unlisten in self._unlisten.values():
            unlisten()
        insist(self._let_go, self._stop)

    # --- start -------------------------------------------------------------------------------------------------

    def _hold_node(self) -> None:
        """Lease the node, so that no other machine serves it; HeldElsewhere names the one that does."""
        mine = NodePulse.objects.filter(pk=self._node.pk).filter(
            Q(held_until=None) | Q(held_until__lt=Now()) | Q(holder__startswith=f"{platform.node()}:")
        )
        until = Now() + timedelta(seconds=liveness.SILENT_AFTER_S)
        if not claim(mine, holder=self._me, held_until=until):
            holder = NodePulse.objects.get(pk=self._node.pk).holder
            raise HeldElsewhere(f"{self._node} is served by {holder}; two machines cannot serve one node.")

    def _start_if_new(self) -> None:
        """After a new boot or a new start of the stack: look, bring up what is wanted, then open the lanes.

        Raises Transient while a hypervisor cannot be asked; the lanes stay closed until one look was whole.
        """
        if not self._has_looked:
            self._look_at_all()
        row = Node.objects.filter(pk=self._node.pk)
        if row.filter(**this_start()).exists():
            self._is_open = True
            return
        for listener in listeners.on_start:
            listener(self._node)
        row.update(**this_start())
        self._is_open = True
        note("node", self._node.uid, "node.start", f"{self._node} started anew")
        log.info("the node starts anew; its lanes are open", node=self._node.uid)

    # --- the loop ----------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        now = time.monotonic()
        for hypervisor, again_at in list(self._deaf.items()):
            if now >= again_at:
                self._listen(hypervisor)
        if now - self._beat_at >= liveness.HEARTBEAT_S:
            if not self._is_open:  # a hypervisor could not be asked at the first try
                insist(self._start_if_new, self._stop)
            insist(self._beat, self._stop)
        if now - self._looked_at >= liveness.OBSERVE_EVERY_S:
            insist(self._tend, self._stop)
            insist(self._look_at_all, self._stop)
        try:
            look = self._heard.get(timeout=min(liveness.HEARTBEAT_S, LISTEN_AGAIN_S))
        except queue.Empty:
            return
        if look is None:  # a line came back: what happened meanwhile was not heard
            insist(self._look_at_all, self._stop)
        else:
            insist(partial(self._tell, look), self._stop)

    def _beat(self) -> None:
        self._beat_at = time.monotonic()
        close_old_connections()
        until = Now() + timedelta(seconds=liveness.SILENT_AFTER_S)
        if not claim(NodePulse.objects.filter(pk=self._node.pk, holder=self._me), held_until=until):
            raise HeldElsewhere(f"{self._node} was taken over by another machine; this observer ends.")
        liveness.beat(self._node)

    def _tell(self, look: Observation) -> None:
        close_old_connections()
        for listener in listeners.on_seen:
            listener(self._node, look)

    def _look_at_all(self) -> None:
        self._looked_at = time.monotonic()
        close_old_connections()
        looks: list[Observation] = []
        for hypervisor in self._node.hypervisors:
            looks += local.driver(hypervisor).observe_all()
        for listener in listeners.on_seen_all:
            listener(self._node, looks)
        self._has_looked = True
        NodePulse.objects.filter(pk=self._node.pk).update(observed_at=Now(), figures=local.figures(self._node))

    def _tend(self) -> None:
        close_old_connections()
        for listener in listeners.on_tend:
            listener(self._node)

    def _let_go(self) -> None:
        NodePulse.objects.filter(pk=self._node.pk, holder=self._me).update(holder="", held_until=None)

    # --- lines that break --------------------------------------------------------------------------------------

    def _listen(self, hypervisor: str) -> None:
        driver: Driver = local.driver(hypervisor)
        try:
            self._unlisten[hypervisor] = driver.listen(self._heard.put, partial(self._lost, hypervisor))
        except WorkError as fault:
            log.warning("the hypervisor cannot be listened to", hypervisor=hypervisor, why=fault.message)
            self._deaf[hypervisor] = time.monotonic() + LISTEN_AGAIN_S
            return
        if self._deaf.pop(hypervisor, None) is not None:
            self._heard.put(None)

    def _lost(self, hypervisor: str, why: str) -> None:
        log.warning("the line to the hypervisor broke", hypervisor=hypervisor, why=why)
        self._deaf[hypervisor] = time.monotonic() + LISTEN_AGAIN_S
