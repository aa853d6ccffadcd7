"""The KVM driver: guests are QEMU processes, accelerated by KVM where it works, by TCG elsewhere."""

from __future__ import annotations

import pwd
from contextlib import ExitStack
from pathlib import Path

import libvirt

from hypervisor.contract import DiskSpec, GuestSpec, Hypervisor, Permanent, Watch
from hypervisor.drivers.libvirt import domain_xml, seed
from hypervisor.drivers.libvirt.driver import LibvirtDriver
from hypervisor.drivers.libvirt.faults import is_gone
from hypervisor.drivers.settings import DriverSettings

UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
)


class KvmDriver(LibvirtDriver):
    """Domains are defined while the guest runs, so that libvirtd can tell how it ended even after its own restart.

    How ends look (libvirt 9): power-off inside → SHUTDOWN event, then STOPPED/SHUTDOWN, reason shutdown;
    QEMU killed → STOPPED/FAILED, reason crashed, also when libvirtd was away just then; destroy → STOPPED/DESTROYED.
    """

    hypervisor = Hypervisor.KVM

    def __init__(self, settings: DriverSettings) -> None:
        super().__init__(settings, "qemu")

    def _start(self, spec: GuestSpec, watch: Watch, undo: ExitStack) -> libvirt.virDomain:
        iso = self.notes.directory(spec.uid) / "seed.iso"
        seed.write_iso(spec.seed, iso, owner=self._qemu_uid())
        connection = self.connection.get()
        text = domain_xml.kvm_domain(
            spec, stack=self.settings.stack, acceleration=self.settings.acceleration, seed_iso=iso
        )
        watch.checkpoint()
        with self._calling("define", spec.uid):
            domain = connection.defineXML(text)
        undo.callback(self._undefine, domain)
        with self._calling("create", spec.uid, watch=watch):
            domain.create()
        return domain

    def _disks_of(self, domain: libvirt.virDomain, text: str) -> tuple[DiskSpec, ...]:
        return tuple(
            DiskSpec(Path(path).stem, path, disk_format, domain.blockInfo(path)[0], boot=is_boot)
            for path, disk_format, is_boot in domain_xml.disk_files_of(text)
        )

    def _qemu_uid(self) -> int:
        try:
            return pwd.getpwnam(self.settings.qemu_user).pw_uid
        except KeyError:
            raise Permanent(
                f"the node has no user {self.settings.qemu_user}, as whom QEMU runs",
                advice="It comes with libvirt's packages, or with `make up` on a laptop.",
            ) from None

    def _ask_to_power_off(self, spec: GuestSpec, domain: libvirt.virDomain, watch: Watch) -> None:
        with self._calling("shutdown", "acpi", spec.uid, watch=watch):
            try:
                domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
            except libvirt.libvirtError as error:
                if not is_gone(error):
                    raise

    def _give_back(self, uid: str) -> None:
        domain = self._find(uid)
        if domain is not None:
            self._undefine(domain)

    def _undefine(self, domain: libvirt.virDomain) -> None:
        with self._calling("undefine", domain.name()):
            try:
                domain.undefineFlags(UNDEFINE)
            except libvirt.libvirtError as error:
                if not is_gone(error):
                    raise
