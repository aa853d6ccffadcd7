"""Which driver stands behind which hypervisor; libvirt is imported only for a driver that needs it."""

from __future__ import annotations

from importlib import import_module

from hypervisor.contract import Hypervisor
from hypervisor.drivers.base import Driver
from hypervisor.drivers.settings import DriverSettings

DRIVERS = {
    Hypervisor.KVM: "hypervisor.drivers.libvirt.kvm:KvmDriver",
    Hypervisor.LXC: "hypervisor.drivers.libvirt.lxc:LxcDriver",
    Hypervisor.FAKE: "hypervisor.drivers.fake:FakeDriver",
}


def load(hypervisor: Hypervisor, settings: DriverSettings) -> Driver:
    """The driver of a hypervisor. Connections are opened at its first call: after the last fork."""
    module, _, name = DRIVERS[hypervisor].partition(":")
    return getattr(import_module(module), name)(settings)
