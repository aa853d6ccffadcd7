"""One lasting connection to libvirtd per driver and process, opened late, reopened when dead, bounded when mute."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from contextvars import copy_context
from pathlib import Path

import libvirt
import structlog

from hypervisor.contract import Transient
from hypervisor.drivers.libvirt.faults import speaking_plainly

log = structlog.get_logger()

OPEN_TIMEOUT_S = 15
# A mute libvirtd is found after KEEPALIVE_INTERVAL_S * (KEEPALIVE_COUNT + 1): every waiting call then fails.
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 2

_loop_lock = threading.Lock()
_loop_runs = False


def socket_uri(hypervisor: str, socket: Path) -> str:
    """The address of a driver of libvirt ("qemu" or "lxc") behind a unix socket."""
    return f"{hypervisor}+unix:///system?socket={socket}"


def run_event_loop() -> None:
    """Start libvirt's event loop on a thread of this process, once: keepalives and events need it.

    It does not survive a fork and cannot be started again after one: so never before the last fork.
    """
    global _loop_runs
    with _loop_lock:
        if _loop_runs:
            return
        libvirt.registerErrorHandler(_say_nothing, None)
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_turn, name="libvirt-events", daemon=True).start()
        _loop_runs = True


def _turn() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def _say_nothing(_context: object, _error: object) -> None:
    """Errors reach us as exceptions; libvirt would print each a second time."""


class Connection:
    """Gives an open connection to whoever asks. Safe for threads."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._lock = threading.Lock()
        self._connection: libvirt.virConnect | None = None
        self._opening: Future[libvirt.virConnect] | None = None

    def get(self) -> libvirt.virConnect:
        """The shared connection, opened anew if it died. Raises Transient when libvirtd is away or mute."""
        with self._lock:
            if self._connection is not None and self._connection.isAlive():
                return self._connection
            opening = self._opening
            if opening is None:
                opening = self._opening = self._open_on_a_thread()
        try:
            connection = self._wait_for(opening)
        finally:
            with self._lock:
                if opening.done() and self._opening is opening:
                    self._opening = None
        with self._lock:
            self._connection = connection
        return connection

    def open_another(self) -> libvirt.virConnect:
        """A connection of the caller's own, to be closed by them."""
        return self._wait_for(self._open_on_a_thread())

    def _open_on_a_thread(self) -> Future[libvirt.virConnect]:
        # connect() succeeds on the socket of a stopped libvirtd and the first answer never comes: keepalives do not
        # run yet. A thread may wait for it without end, its callers do not.
        run_event_loop()
        opening: Future[libvirt.virConnect] = Future()

        def work() -> None:
            begun = time.monotonic()
            try:
                connection = libvirt.open(self.uri)
                connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
                log.info("connected to libvirt", uri=self.uri, ms=round((time.monotonic() - begun) * 1000, 1))
                opening.set_result(connection)
            except libvirt.libvirtError as error:
                opening.set_exception(error)

        threading.Thread(target=copy_context().run, args=(work,), name="libvirt-open", daemon=True).start()
        return opening

    def _wait_for(self, opening: Future[libvirt.virConnect]) -> libvirt.virConnect:
        with speaking_plainly(f"connecting to {self.uri}"):
            try:
                return opening.result(timeout=OPEN_TIMEOUT_S)
            except TimeoutError:
                raise Transient(
                    f"connecting to {self.uri}: libvirtd did not answer for {OPEN_TIMEOUT_S} s",
                    advice="The daemon takes connections but is mute: look at its log, restart it. Guests survive.",
                ) from None
