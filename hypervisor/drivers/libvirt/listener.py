"""Hears libvirt's events on a connection of its own and turns each into a fresh look at the guest."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import libvirt

from hypervisor.contract import Observation, Permanent, Transient

if TYPE_CHECKING:
    from hypervisor.drivers.libvirt.driver import LibvirtDriver

logger = logging.getLogger(__name__)

# Definitions come and go while we start and clear up guests: they say nothing about the guest.
OF_NO_CONCERN = {libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED}
CLOSED = {
    libvirt.VIR_CONNECT_CLOSE_REASON_ERROR: "an error on the line",
    libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "libvirtd went away",
    libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "libvirtd is mute",
    libvirt.VIR_CONNECT_CLOSE_REASON_CLIENT: "closed",
}
DOUBT = -1  # beside libvirt's own numbers: a watcher of ours doubts that the guest runs


class Listener:
    """One time of listening: from `start` until stopped or until the line breaks.

    libvirt's own thread only puts news into a queue, since a call from it would stop the keepalives of the process;
    a thread of the listener notes how guests ended, looks at them and tells.
    """

    def __init__(
        self, driver: LibvirtDriver, heard: Callable[[Observation], None], lost: Callable[[str], None]
    ) -> None:
        self._driver = driver
        self._heard = heard
        self._lost = lost
        self._news: queue.SimpleQueue[tuple[str, int, int] | str | None] = queue.SimpleQueue()
        self._connection: libvirt.virConnect | None = None
        self._callbacks: list[int] = []

    def start(self) -> Callable[[], None]:
        """Begin; returns the function that ends it. No event after the return of this call is missed."""
        connection = self._connection = self._driver.connection.open_another()
        connection.registerCloseCallback(self._on_close, None)
        for event, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot),
        ):
            self._callbacks.append(connection.domainEventRegisterAny(None, event, callback, None))
        self._driver.attend(connection, lambda uid: self._news.put((uid, DOUBT, 0)))
        thread = threading.Thread(target=self._work, name=f"listen-{self._driver.hypervisor}", daemon=True)
        thread.start()

        def stop() -> None:
            self._news.put(None)
            if threading.current_thread() is not thread:
                thread.join()

        return stop

    # On libvirt's thread ------------------------------------------------------------------------------------------

    def _on_lifecycle(
        self, _connection: libvirt.virConnect, domain: libvirt.virDomain, event: int, detail: int, _opaque: object
    ) -> None:
        self._news.put((domain.name(), event, detail))

    def _on_reboot(self, _connection: libvirt.virConnect, domain: libvirt.virDomain, _opaque: object) -> None:
        self._news.put((domain.name(), libvirt.VIR_DOMAIN_EVENT_STARTED, 0))

    def _on_close(self, _connection: libvirt.virConnect, reason: int, _opaque: object) -> None:
        self._news.put(CLOSED.get(reason, "unknown reason"))

    # On our thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        reason: str | None = "listening failed: the log of this process says how"
        try:
            while isinstance(news := self._news.get(), tuple):
                self._take(*news)
            reason = news
        except Transient as fault:
            reason = fault.message
        finally:
            self._close()
        if reason is not None:
            self._lost(reason)

    def _take(self, uid: str, event: int, detail: int) -> None:
        driver = self._driver
        if event in OF_NO_CONCERN or not driver.notes.knows(uid):
            return
        try:
            if event == DOUBT and not driver.went_unnoticed(uid):
                return
            if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
                driver.guest_began(uid)
            elif event == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN:
                driver.guest_goes_down(uid, detail)
            elif event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
                driver.guest_ended(uid, detail)
            seen = driver.observe(uid)
        except Permanent as fault:
            logger.warning("an event of %s was not understood: %s", uid, fault.message)
        else:
            self._heard(seen)

    def _close(self) -> None:
        self._driver.attend_no_more()
        connection = self._connection
        with suppress(libvirt.libvirtError):  # a line that broke needs no good-bye
            for callback in self._callbacks:
                connection.domainEventDeregisterAny(callback)
            connection.unregisterCloseCallback()
            connection.close()
