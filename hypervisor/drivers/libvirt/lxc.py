"""The LXC driver: unprivileged containers, each under its own range of user ids, on the disk of its instance."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import libvirt
import structlog

from hypervisor.contract import (
    CommandRecord,
    DiskSpec,
    GuestSpec,
    Hypervisor,
    Observation,
    Observed,
    Permanent,
    Watch,
)
from hypervisor.drivers.libvirt import domain_xml, rootfs, seed, states
from hypervisor.drivers.libvirt.console import ConsoleReaders
from hypervisor.drivers.libvirt.driver import LibvirtDriver
from hypervisor.drivers.libvirt.exits import ExitWatch, init_of, lives
from hypervisor.drivers.libvirt.faults import is_gone, speaking_plainly
from hypervisor.drivers.libvirt.idmap import ID_COUNT
from hypervisor.drivers.settings import DriverSettings

log = structlog.get_logger()

CONTROLLER = "libvirt_lxc"  # the program that libvirtd starts for each container


class LxcDriver(LibvirtDriver):
    """Domains are transient: a container lives on a mount that exists only while it runs.

    libvirt does not tell how one ended: its controller says SHUTDOWN whether init called poweroff or was killed.
    The kernel does (`exits`): poweroff and halt inside end init by SIGINT, an init that returns exits with its code,
    anything else is a crash. Somebody must listen at that moment, and one only; an end that nobody saw counts as crash.
    """

    hypervisor = Hypervisor.LXC

    def __init__(self, settings: DriverSettings) -> None:
        super().__init__(settings, "lxc")
        self.mounts_dir = settings.node_dir / "mounts"
        self._exits = ExitWatch(lambda uid: self._doubt(uid))
        self._doubt: Callable[[str], None] = lambda uid: None  # while nobody listens
        self._consoles: ConsoleReaders | None = None  # while somebody listens

    def _root(self, uid: str) -> Path:
        return self.mounts_dir / uid

    def _check(self, spec: GuestSpec) -> None:
        super()._check(spec)
        if spec.uid_base < ID_COUNT:
            raise Permanent(
                f"the ids of {spec.uid} would begin at {spec.uid_base}, within those of the node itself",
                advice=f"A guest's range must begin at {ID_COUNT} or above.",
            )

    def _start(self, spec: GuestSpec, watch: Watch, undo: ExitStack) -> libvirt.virDomain:
        root, seed_directory = self._root(spec.uid), self.notes.directory(spec.uid) / "seed"
        boot = next((disk for disk in spec.disks if disk.boot), spec.disks[0])
        self._dispel_shadow(spec.uid)
        rootfs.share(self.mounts_dir)
        if rootfs.ensure_shown(boot, spec.root_device, root, spec.uid_base):
            undo.callback(rootfs.ensure_hidden, root)
            log.info("the root file system is mounted", disk=boot.uid, at=str(root), first_user_id=spec.uid_base)
            watch.ran(CommandRecord(argv=("mount", boot.path, str(root)), exit_code=0))
        seed.write_directory(spec.seed, seed_directory, owner=spec.uid_base)
        text = domain_xml.lxc_domain(spec, stack=self.settings.stack, root=root, seed_directory=seed_directory)
        watch.checkpoint()
        with self._calling("createXML", spec.uid, watch=watch):
            return self.connection.get().createXML(text)

    def _disks_of(self, domain: libvirt.virDomain, text: str) -> tuple[DiskSpec, ...]:
        path = rootfs.disk_at(self._root(domain.name()))
        return (DiskSpec(Path(path).stem, path, "raw", Path(path).stat().st_size, boot=True),) if path else ()

    def _ask_to_power_off(self, spec: GuestSpec, domain: libvirt.virDomain, watch: Watch) -> None:
        try:
            number = stop_signal(spec.init, caught_signals(init_of(domain.ID())))
            with self._calling("sendProcessSignal", signal_name(number), spec.uid, watch=watch):
                domain.sendProcessSignal(1, number)
        except libvirt.libvirtError as error:
            if not is_gone(error):
                raise

    def _give_back(self, uid: str) -> None:
        self._dispel_shadow(uid)
        rootfs.ensure_hidden(self._root(uid))

    def _dispel_shadow(self, uid: str) -> None:
        """Have libvirtd forget a container that ended while it was away itself.

        It keeps a transient domain that is off, beside which none of that name can be started (seen in 9.0). The order
        to destroy it is refused, and it goes all the same.
        """
        try:
            domain = self.connection.get().lookupByName(uid)
            if not domain.isActive():
                domain.destroy()
        except libvirt.libvirtError as error:
            if not is_gone(error):
                raise

    # Listening ----------------------------------------------------------------------------------------------------

    def attend(self, connection: libvirt.virConnect, doubt: Callable[[str], None]) -> None:
        self._doubt = doubt
        self._consoles = ConsoleReaders()
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            if self.notes.knows(domain.name()):
                self._take_up(domain)

    def attend_no_more(self) -> None:
        self._exits.close()
        self._consoles.close()

    def guest_began(self, uid: str) -> None:
        with speaking_plainly(f"looking at {uid}"):
            domain = self._find(uid)
            if domain is not None:
                self._take_up(domain)

    def _take_up(self, domain: libvirt.virDomain) -> None:
        try:
            tty, log = domain_xml.console_of(domain.XMLDesc())
            controller = domain.ID()
        except libvirt.libvirtError as error:
            if is_gone(error):
                return
            raise
        if tty and log:
            self._consoles.follow(domain.name(), tty, Path(log))
        self._exits.watch(domain.name(), controller)

    def guest_ended(self, uid: str, detail: int) -> None:
        self._note_end(uid, *self._verdict(uid, detail))
        self._exits.forget(uid)

    def went_unnoticed(self, uid: str) -> bool:
        """libvirtd may lose its line to a controller just after the start (seen in 9.0), and then never hears its end.

        Such a container is noted as ended and taken from libvirtd, which would show it running for ever.
        """
        with speaking_plainly(f"looking at {uid}"):
            domain = self._find(uid)
            if domain is None or not domain.isActive() or _is_controller(domain.ID()):
                return False
            self._note_end(uid, *self._verdict(uid, libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED))
            with self._calling("destroy", uid):
                self._destroy(domain)
        return True

    def _verdict(self, uid: str, detail: int) -> tuple[Observed, str]:
        if detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED:
            return states.of_stopped(detail)
        if (status := self._exits.status(uid)) is not None:
            return meaning(status)
        return states.of_stopped(detail if self._exits.is_blind(uid) else libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED)

    def _unexplained(self, uid: str) -> Observation:
        status = self._exits.status(uid)
        return super()._unexplained(uid) if status is None else self._note_end(uid, *meaning(status))


def _is_controller(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == CONTROLLER and lives(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False


def meaning(status: int) -> tuple[Observed, str]:
    """What the wait status of a container's init says about its end."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGINT:  # how the kernel tells the parent of a namespace that reboot(POWER_OFF) was called
            return Observed.HALTED, "powered off"
        if number == signal.SIGHUP:  # reboot(RESTART); libvirt should have started it again
            return Observed.CRASHED, "did not come back from a reboot"
        return Observed.CRASHED, f"init was killed by {signal_name(number)}"
    code = os.WEXITSTATUS(status)
    return (Observed.CRASHED, f"init failed with exit code {code}") if code else (Observed.HALTED, "init ended")


def stop_signal(init: str, caught: frozenset[int]) -> int:
    """The signal that makes an init power off.

    systemd: SIGRTMIN+3 as the C library counts (37); libvirt passes the number on as it is.
    busybox: SIGTERM to a script that traps it; busybox's own init takes TERM for "reboot" and USR2 for "power off".
    """
    if init == "systemd":
        return signal.SIGRTMIN + 3
    return signal.SIGUSR2 if signal.SIGUSR2 in caught else signal.SIGTERM


def caught_signals(pid: int | None) -> frozenset[int]:
    """The signals that a process handles or waits for; none when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return frozenset()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    mask = int(fields["SigBlk"], 16) | int(fields["SigCgt"], 16)
    return frozenset(number for number in range(1, 65) if mask >> (number - 1) & 1)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
