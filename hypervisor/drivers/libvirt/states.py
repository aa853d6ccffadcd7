"""What libvirt's states and reasons mean in the words of the contract.

    running, blocked            → running       shut off: shutdown, saved   → halted
    paused, pmsuspended         → paused        shut off: anything else     → crashed
    shutdown (still going down) → running

A domain that somebody destroyed behind our back did not power off in order: it counts as crashed, with that reason.
Our own power-off is known from its note before any of this is asked.
"""

from __future__ import annotations

import libvirt

from hypervisor.contract import Observed

PAUSED_BECAUSE = {
    libvirt.VIR_DOMAIN_PAUSED_USER: "by request",
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION: "migration",
    libvirt.VIR_DOMAIN_PAUSED_SAVE: "saving",
    libvirt.VIR_DOMAIN_PAUSED_DUMP: "dump",
    libvirt.VIR_DOMAIN_PAUSED_IOERROR: "I/O error of a disk",
    libvirt.VIR_DOMAIN_PAUSED_WATCHDOG: "watchdog",
    libvirt.VIR_DOMAIN_PAUSED_SHUTTING_DOWN: "shutting down",
    libvirt.VIR_DOMAIN_PAUSED_SNAPSHOT: "snapshot",
    libvirt.VIR_DOMAIN_PAUSED_CRASHED: "crashed",
}
SHUTOFF_BECAUSE = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: (Observed.HALTED, "powered off"),
    libvirt.VIR_DOMAIN_SHUTOFF_SAVED: (Observed.HALTED, "saved"),
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: (Observed.CRASHED, "destroyed by somebody else"),
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: (Observed.CRASHED, "died"),
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: (Observed.CRASHED, "failed"),
    libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED: (Observed.CRASHED, "migrated away by somebody else"),
    libvirt.VIR_DOMAIN_SHUTOFF_DAEMON: (Observed.CRASHED, "lost by libvirtd"),
}
STOPPED_BECAUSE = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: libvirt.VIR_DOMAIN_SHUTOFF_SAVED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: libvirt.VIR_DOMAIN_SHUTOFF_CRASHED,
    # QEMU that was killed: "monitor closed without SHUTDOWN event".
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: libvirt.VIR_DOMAIN_SHUTOFF_CRASHED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED,
}


def of_domain(state: int, detail: int) -> tuple[Observed, str]:
    """State and reason of a domain as virDomainGetState tells them."""
    if (state, detail) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP):
        return Observed.RUNNING, "starting up"
    if state in (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED):
        return Observed.PAUSED, PAUSED_BECAUSE.get(detail, "unknown")
    if state in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_SHUTDOWN):
        return Observed.RUNNING, "shutting down" if state == libvirt.VIR_DOMAIN_SHUTDOWN else ""
    return of_shutoff(detail)


def of_shutoff(detail: int) -> tuple[Observed, str]:
    """The reason of a domain that is shut off."""
    return SHUTOFF_BECAUSE.get(detail, (Observed.CRASHED, "ended while nobody watched"))


def of_stopped(detail: int) -> tuple[Observed, str]:
    """The detail of a STOPPED event."""
    return of_shutoff(STOPPED_BECAUSE.get(detail, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN))
