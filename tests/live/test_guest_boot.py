"""The KVM test guest in a real QEMU, without a data center around it."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.guests.build import build_images
from hypervisor.contract import SeedSpec
from hypervisor.drivers.libvirt.seed import write_iso

pytestmark = pytest.mark.live

CLONE = Path(__file__).resolve().parents[2]
PATIENCE_S = 120  # an emulated processor beside other work


class Machine:
    """One run of QEMU on a disk: serial port to a file, ports 22 and 80 forwarded, power button by QMP."""

    def __init__(self, directory: Path, key: Path) -> None:
        self.console_file = directory / "console"
        self.console_file.write_text("")
        self._input = directory / "serial.sock"
        self._keyboard: socket.socket | None = None
        self._monitor = directory / "monitor.sock"
        self._key = key
        self.ssh_port, self.http_port = free_port(), free_port()
        forwards = f"hostfwd=tcp:127.0.0.1:{self.ssh_port}-:22,hostfwd=tcp:127.0.0.1:{self.http_port}-:80"
        argv = ["qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-m", "128", "-nodefaults", "-no-reboot"]
        argv += ["-display", "none", "-qmp", f"unix:{self._monitor},server=on,wait=off"]
        argv += ["-chardev", f"socket,id=s,path={self._input},server=on,wait=off,logfile={self.console_file}"]
        argv += ["-serial", "chardev:s", "-device", "virtio-rng-pci"]
        argv += ["-drive", f"file={directory / 'disk.raw'},format=raw,if=virtio"]
        argv += ["-drive", f"file={directory / 'seed.iso'},format=raw,if=virtio,readonly=on"]
        argv += ["-netdev", f"user,id=n,{forwards}", "-device", "virtio-net-pci,netdev=n"]
        self._process = subprocess.Popen(argv)

    def _shown(self, after: str) -> str:
        shown = self.console_file.read_text(errors="replace")
        return shown.rpartition(after)[2] if after else shown

    def wait_for_console(self, text: str, after: str = "") -> None:
        """Until the console has shown the text, behind the last place where it showed `after`."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self._shown(after):
            assert self._process.poll() is None, f"QEMU ended before {text!r}"
            assert time.monotonic() < deadline, f"no {text!r} within {PATIENCE_S} s"
            time.sleep(0.05)

    def type(self, text: str) -> None:
        if self._keyboard is None:  # kept: QEMU drops what it has not read yet when a connection ends
            self._keyboard = socket.socket(socket.AF_UNIX)
            self._keyboard.connect(str(self._input))
        self._keyboard.sendall(text.encode())

    def page(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/", timeout=PATIENCE_S) as answer:
            return answer.read().decode()

    def ssh(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        argv = ["ssh", "-F", "/dev/null", "-p", str(self.ssh_port), "-i", str(self._key), "-o", "BatchMode=yes"]
        argv += ["-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={self._key}.hosts"]
        argv += ["-o", "HostKeyAlias=web1"]  # whatever the forwarded port is
        argv += ["-o", "LogLevel=ERROR", *options, "root@127.0.0.1", command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def press_power_button(self) -> None:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self._monitor))
            line.settimeout(PATIENCE_S)
            answers = line.makefile()
            for command in ("qmp_capabilities", "system_powerdown"):
                line.sendall(json.dumps({"execute": command}).encode() + b"\n")
                # The greeting and events come in between.
                assert any('"return"' in answer for answer in answers), f"QEMU did not answer {command}"

    def wait_until_off(self) -> None:
        assert self._process.wait(timeout=PATIENCE_S) == 0

    def kill(self) -> None:
        if self._keyboard is not None:
            self._keyboard.close()
        self._process.kill()
        self._process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    return tmp_path / "key"


@pytest.fixture
def installed(tmp_path: Path, key: Path) -> Path:
    """A directory with the disk and the seed of a new instance."""
    images = CLONE / "build" / "guests"
    build_images(images, print)
    with gzip.open(images / "kvm.raw.gz") as packed, (tmp_path / "disk.raw").open("wb") as disk:
        shutil.copyfileobj(packed, disk, 1 << 20)
    seed = SeedSpec(
        instance_uid="i-abc12345",
        hostname="web1",
        authorized_keys=(key.with_suffix(".pub").read_text().strip(),),
        user_data="#!/bin/sh\necho once >>/root/user-data-ran\n",
    )
    write_iso(seed, tmp_path / "seed.iso", owner=0)
    return tmp_path


@pytest.fixture
def machine(installed: Path, key: Path) -> Iterator[Machine]:
    started = Machine(installed, key)
    yield started
    started.kill()


@pytest.fixture
def machine_again(machine: Machine, installed: Path, key: Path) -> Iterator[Machine]:
    """The same disk in a second run, after an orderly end of the first; a file was written in between."""
    machine.wait_for_console("user-data ended with exit code 0")
    machine.wait_for_console("ssh answers")
    assert machine.ssh("echo kept >/root/file").returncode == 0
    machine.press_power_button()
    machine.wait_until_off()
    started = Machine(installed, key)
    yield started
    started.kill()


def test_a_new_instance_answers_by_every_door(machine):
    machine.wait_for_console("vdc-guest: ssh answers")
    assert machine.console_file.read_text(errors="replace").lstrip().startswith("vdc-guest: init started")
    machine.wait_for_console("has the address 10.0.2.15/24")
    assert machine.page() == "hello from web1\ninstance-id: i-abc12345\n"
    assert machine.ssh("hostname").stdout == "web1\n"

    refused = machine.ssh("true", "-o", "PubkeyAuthentication=no")
    assert "Permission denied (publickey)" in refused.stderr

    machine.wait_for_console("web1 login:")
    machine.type("root\n")
    machine.wait_for_console("root@web1:~#")
    machine.type("echo be''gun; cat\n")
    machine.wait_for_console("begun")
    machine.type("\x03")  # Ctrl-C ends what runs there, and drops what was typed before it was heard
    machine.wait_for_console("root@web1:~#", after="begun")
    machine.type("echo $((6 * 7)) answers\n")
    machine.wait_for_console("42 answers")


def test_what_was_written_and_who_it_is_survive_the_power_button(machine_again):
    machine_again.wait_for_console("vdc-guest: ssh answers")
    # The host key of the first boot is known by now: another one would be refused.
    kept = machine_again.ssh("cat /root/file /root/user-data-ran")
    assert kept.stdout == "kept\nonce\n", kept.stderr


@pytest.mark.parametrize("command", ["poweroff", "reboot"])
def test_the_guest_goes_down_in_order_when_told_inside(machine, command):
    machine.wait_for_console("vdc-guest: ssh answers")
    machine.ssh(command)  # its exit code tells nothing: the connection may end first
    machine.wait_until_off()  # a reboot too ends this QEMU
    assert f"vdc-guest: going down for {command}" in machine.console_file.read_text(errors="replace")
