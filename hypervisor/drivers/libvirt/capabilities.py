"""What libvirt and the kernel of this node can do: asked when a node joins, not while guests are driven."""

from __future__ import annotations

import errno
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from hypervisor.contract import Hypervisor, Permanent, Transient
from hypervisor.drivers.libvirt.connection import Connection, socket_uri
from hypervisor.drivers.libvirt.faults import speaking_plainly
from hypervisor.drivers.libvirt.idmap import user_namespace
from hypervisor.drivers.libvirt.syscalls import map_owners

# libvirt's name of the driver, and the type of guests that it must know.
_DRIVERS = {Hypervisor.KVM: ("qemu", "hvm"), Hypervisor.LXC: ("lxc", "exe")}
_PROBE_UID_BASE = 500_000


@dataclass(frozen=True, slots=True)
class DriverAnswer:
    """What one driver of libvirt said: its guests can be made when `fault` is empty, else the sentence says why not."""

    hypervisor: Hypervisor
    fault: str = ""


def ask_drivers(socket: Path, arch: str) -> list[DriverAnswer]:
    """Ask libvirt's drivers for KVM and LXC, each in bounded time, whether they serve guests of `arch` ("x86_64")."""
    return [DriverAnswer(hypervisor, _fault_of(hypervisor, socket, arch)) for hypervisor in _DRIVERS]


def _fault_of(hypervisor: Hypervisor, socket: Path, arch: str) -> str:
    driver, guest_type = _DRIVERS[hypervisor]
    try:
        connection = Connection(socket_uri(driver, socket)).open_another()
        with speaking_plainly(f"asking libvirt's {driver} driver what it can do"):
            try:
                capabilities = connection.getCapabilities()
            finally:
                connection.close()
    except (Transient, Permanent) as fault:
        return fault.message
    if not _serves(capabilities, guest_type, arch):
        return f"libvirt's {driver} driver answers, but knows no program that runs {guest_type} guests of {arch}"
    return ""


def _serves(capabilities: str, guest_type: str, arch: str) -> bool:
    guests = ET.fromstring(capabilities).iterfind("guest")  # noqa: S314 - libvirt's own words
    return any(
        guest.findtext("os_type") == guest_type
        and (found := guest.find("arch")) is not None
        and found.get("name") == arch
        for guest in guests
    )


def has_idmapped_mounts() -> bool:
    """Whether the kernel (5.12 or newer) can show the owners of a mount moved; tried, not read from a version."""
    try:
        map_owners(-1, -1)
    except OSError as refusal:
        # A kernel that has the call complains about the descriptors.
        return refusal.errno not in (errno.ENOSYS, errno.EPERM)
    return True


def user_namespace_fault() -> str:
    """Why this node cannot make the user namespace of an unprivileged container; empty when it can."""
    try:
        with user_namespace(_PROBE_UID_BASE):
            return ""
    except (Permanent, OSError) as fault:
        return str(fault)
