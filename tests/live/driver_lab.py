"""A private libvirtd, disks of the test guests, and what can be done to guests from outside; for the driver tests."""

from __future__ import annotations

import gzip
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt

from deploy.guests.build import build_images
from deploy.laptop import Stack, clean, up
from hypervisor.contract import DiskSpec, GuestSpec, Hypervisor, NicSpec, SeedSpec
from hypervisor.drivers.libvirt import loops, rootfs
from hypervisor.drivers.libvirt.driver import LibvirtDriver
from hypervisor.drivers.libvirt.exits import init_of
from hypervisor.drivers.libvirt.lxc import caught_signals
from hypervisor.drivers.load import load
from hypervisor.drivers.settings import DriverSettings
from tests.hypervisor.noting_watch import NotingWatch
from tests.live.mount_namespace import inside

CLONE = Path(__file__).resolve().parents[2]
PATIENCE_S = 90
DISK_BYTES = 96 << 20


def until(question: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not question():
        assert time.monotonic() < deadline, f"still waiting for {what}"
        time.sleep(0.05)


@dataclass(frozen=True)
class Host:
    """A stack's libvirtd, with raw images of the test guests and a bridge."""

    stack: Stack
    number: int
    settings: DriverSettings
    kvm_image: Path
    lxc_image: Path
    bridge: str

    @property
    def libvirtd_pid(self) -> int:
        return int((Path("/run") / self.stack.name / "libvirtd.pid").read_text())

    def restart_libvirtd(self) -> None:
        """End libvirtd and wait until its supervisor has started another one that answers."""
        old = self.libvirtd_pid
        os.kill(old, signal.SIGTERM)
        until(lambda: self._answers_anew(old), "libvirtd to come back")

    def _answers_anew(self, old: int) -> bool:
        with suppress(libvirt.libvirtError, FileNotFoundError, ValueError):
            if self.libvirtd_pid != old:
                libvirt.open(f"lxc+unix:///system?socket={self.settings.libvirt_socket}").close()
                return True
        return False


@contextmanager
def host(name: str) -> Iterator[Host]:
    """A stack of that name with libvirtd only; the calling thread works in its mount namespace meanwhile."""
    build_images(CLONE / "build" / "guests", lambda _line: None)
    stack = Stack(name)
    try:
        content = up(name, only="infrastructure")
        node_dir = Path(content["state_dir"]) / "node"
        images = {}
        for kind in ("kvm", "lxc"):
            images[kind] = node_dir / "images" / f"{kind}.raw"
            images[kind].parent.mkdir(parents=True, exist_ok=True)
            with gzip.open(CLONE / "build" / "guests" / f"{kind}.raw.gz") as packed, images[kind].open("wb") as raw:
                shutil.copyfileobj(packed, raw)
        settings = DriverSettings(stack=name, node_dir=node_dir, libvirt_socket=Path(content["libvirt_socket"]))
        subprocess.run(["ip", "link", "add", content["bridge"], "type", "bridge"], check=True)
        try:
            subprocess.run(["ip", "link", "set", content["bridge"], "up"], check=True)
            with inside(Path("/run") / name / "ns" / "mnt"):
                yield Host(stack, content["number"], settings, images["kvm"], images["lxc"], content["bridge"])
        finally:
            subprocess.run(["ip", "link", "del", content["bridge"]], check=True)
    finally:
        clean(name)


class LibvirtLab:
    """What the contract tests need of a driver of libvirt."""

    hypervisor: Hypervisor
    first_slot: int  # labs may be used side by side
    first_line = "vdc-guest: init started"

    def __init__(self, host: Host) -> None:
        self.host = host
        self.driver = self.another_driver()
        self.specs: list[GuestSpec] = []

    def another_driver(self) -> LibvirtDriver:
        return load(self.hypervisor, self.host.settings)

    def close(self) -> None:
        """Remove all guests with their disks; nothing of them may be left."""
        for spec in self.specs:
            self.driver.ensure_absent(spec, NotingWatch())
            assert self.leftovers(spec) == []
            for disk in spec.disks:
                Path(disk.path).unlink(missing_ok=True)
        assert self.driver.observe_all() == []
        assert self.driver.notes.known() == []

    def spec(self) -> GuestSpec:
        spec = self._spec()
        self.make_disk(Path(spec.disks[0].path))
        return spec

    def broken(self) -> GuestSpec:
        """A guest whose disk is not there."""
        return self._spec()

    def _spec(self) -> GuestSpec:
        slot = self.first_slot + len(self.specs)
        uid = f"i-{self.hypervisor}{slot:05}"
        disk_format = "qcow2" if self.hypervisor is Hypervisor.KVM else "raw"
        node_dir = self.host.settings.node_dir
        disk = DiskSpec(
            f"vol-{uid[2:]}", str(node_dir / "volumes" / f"vol-{uid[2:]}.{disk_format}"), disk_format, DISK_BYTES, True
        )
        nic = NicSpec(f"52:54:00:dd:00:{slot:02x}", "", self.host.bridge, f"v{self.host.number}s{slot}n0")
        spec = GuestSpec(
            uid=uid,
            slot=slot,
            hypervisor=self.hypervisor,
            arch="x86_64",
            vcpus=1,
            memory_mib=160,
            disks=(disk,),
            nics=(nic,),
            seed=SeedSpec(uid, f"guest{slot}", ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP test@test",)),
            console_log=str(node_dir / "consoles" / f"{uid}.log"),
        )
        self.specs.append(spec)
        return spec

    def make_disk(self, path: Path) -> None:
        raise NotImplementedError

    def domain(self, spec: GuestSpec) -> libvirt.virDomain:
        return self.driver.connection.get().lookupByName(spec.uid)

    def run_of(self, spec: GuestSpec) -> object:
        return self.domain(spec).ID()

    def console(self, spec: GuestSpec) -> str:
        path = Path(spec.console_log)
        return path.read_text(errors="replace") if path.exists() else ""

    def leftovers(self, spec: GuestSpec) -> list[str]:
        names = [domain.name() for domain in self.driver.connection.get().listAllDomains()]
        mount = rootfs.mount_at(self.host.settings.node_dir / "mounts" / spec.uid)
        return [
            *(f"domain {name}" for name in names if name == spec.uid),
            *(loop.device for loop in loops.over(spec.disks[0].path)),
            *([mount.target] if mount else []),
            *(nic.host_interface for nic in spec.nics if Path("/sys/class/net", nic.host_interface).exists()),
        ]


class KvmLab(LibvirtLab):
    hypervisor = Hypervisor.KVM
    first_slot = 1

    def make_disk(self, path: Path) -> None:
        self._qcow2("-b", str(self.host.kvm_image), "-F", "raw", str(path))

    def deaf(self) -> GuestSpec:
        """A guest without an operating system: nobody there hears the power button."""
        spec = self._spec()
        self._qcow2(spec.disks[0].path, str(DISK_BYTES))
        return spec

    def _qcow2(self, *arguments: str) -> None:
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *arguments], check=True)
        path = next(argument for argument in arguments if argument.endswith(".qcow2"))
        os.chown(path, pwd.getpwnam(self.host.settings.qemu_user).pw_uid, -1)

    def wait_until_ready(self, spec: GuestSpec) -> None:
        until(lambda: self.console(spec).rfind("login:") > self.console(spec).rfind(self.first_line), "a login prompt")

    def power_off_inside(self, spec: GuestSpec) -> None:
        tty = ET.fromstring(self.domain(spec).XMLDesc()).find("devices/serial/source").get("path")  # noqa: S314
        with open(tty, "w") as keyboard:  # noqa: PTH123
            keyboard.write("root\r")
            keyboard.flush()
            until(lambda: "#" in self.console(spec).rpartition("login:")[2], "a shell prompt")
            keyboard.write("poweroff\r")

    def qemu(self, spec: GuestSpec) -> int:
        return int((self.host.settings.libvirt_socket.parent / "qemu" / f"{spec.uid}.pid").read_text())

    def kill(self, spec: GuestSpec) -> None:
        os.kill(self.qemu(spec), signal.SIGKILL)


class LxcLab(LibvirtLab):
    hypervisor = Hypervisor.LXC
    first_slot = 100

    def _spec(self) -> GuestSpec:
        spec = super()._spec()
        self.specs[-1] = replace(
            spec, init="busybox", root_device="partition:1", uid_base=1_000_000 + 65536 * spec.slot, memory_mib=64
        )
        return self.specs[-1]

    def make_disk(self, path: Path) -> None:
        subprocess.run(["cp", "--sparse=always", self.host.lxc_image, path], check=True)

    def deaf(self) -> GuestSpec:
        """A guest that is told in the words of systemd, which its init does not understand."""
        return replace(self.spec(), init="systemd")

    def init(self, spec: GuestSpec) -> int:
        pid = init_of(self.domain(spec).ID())
        assert pid is not None, f"{spec.uid} does not run"
        return pid

    def wait_until_ready(self, spec: GuestSpec) -> None:
        until(lambda: signal.SIGTERM in caught_signals(self.init(spec)), "an init that hears signals")

    def run_inside(self, spec: GuestSpec, *command: str) -> str:
        """What a command prints that root runs inside the guest."""
        entering = ["nsenter", "-t", str(self.init(spec)), "-m", "-u", "-i", "-n", "-p", "-U", "-r", "-w"]
        return subprocess.run([*entering, "--", *command], check=False, capture_output=True, text=True).stdout

    def power_off_inside(self, spec: GuestSpec) -> None:
        self.run_inside(spec, "poweroff")

    def kill(self, spec: GuestSpec) -> None:
        os.kill(self.init(spec), signal.SIGKILL)
