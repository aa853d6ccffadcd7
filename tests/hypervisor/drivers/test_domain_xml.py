"""Domain XML beside its golden files; `UPDATE_GOLDEN=1 pytest …` writes them anew, to be read before they are kept."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hypervisor.contract import DiskSpec, GuestSpec, Hypervisor, NicSpec, SeedSpec
from hypervisor.drivers.libvirt.domain_xml import console_of, kvm_domain, lxc_domain

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
GUESTS = Path("/var/lib/vdc/node/guests")

KVM = GuestSpec(
    uid="i-k0000001",
    slot=3,
    hypervisor=Hypervisor.KVM,
    arch="x86_64",
    vcpus=2,
    memory_mib=512,
    disks=(
        DiskSpec("vol-data0001", "/var/lib/vdc/node/volumes/vol-data0001.qcow2", "qcow2", 1 << 30),
        DiskSpec("vol-boot0001", "/var/lib/vdc/node/volumes/vol-boot0001.qcow2", "qcow2", 4 << 30, boot=True),
    ),
    nics=(NicSpec("52:54:00:00:00:01", "10.77.0.10", "v0br0", "v0s3n0"),),
    seed=SeedSpec("i-k0000001", "web"),
    console_log="/var/lib/vdc/node/consoles/i-k0000001.log",
)
LXC = replace(
    KVM,
    uid="i-l0000001",
    slot=4,
    hypervisor=Hypervisor.LXC,
    disks=(DiskSpec("vol-root0001", "/var/lib/vdc/node/volumes/vol-root0001.raw", "raw", 1 << 30, boot=True),),
    nics=(
        NicSpec("52:54:00:00:00:02", "10.77.0.11", "v0br0", "v0s4n0"),
        NicSpec("52:54:00:00:00:03", "10.77.0.12", "v0br0", "v0s4n1"),
    ),
    init="systemd",
    root_device="partition:1",
    uid_base=1_000_000,
    console_log="/var/lib/vdc/node/consoles/i-l0000001.log",
)


def lxc_text(spec: GuestSpec = LXC) -> str:
    return lxc_domain(
        spec, stack="vdc", root=Path("/var/lib/vdc/node/mounts") / spec.uid, seed_directory=GUESTS / spec.uid / "seed"
    )


def kvm_text(acceleration: str) -> str:
    return kvm_domain(KVM, stack="vdc", acceleration=acceleration, seed_iso=GUESTS / KVM.uid / "seed.iso")


@pytest.mark.parametrize(
    ("name", "text"),
    [("domain_kvm_tcg.xml", kvm_text("tcg")), ("domain_kvm_kvm.xml", kvm_text("kvm")), ("domain_lxc.xml", lxc_text())],
)
def test_a_domain_looks_as_its_golden_file(name: str, text: str) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


def test_a_container_without_a_card_does_not_share_the_network_of_the_host() -> None:
    assert "<privnet />" in lxc_text(replace(LXC, nics=()))


def test_the_pty_and_the_log_of_a_console_are_found_in_a_running_domain() -> None:
    running = lxc_text().replace('<console type="pty">', '<console type="pty" tty="/dev/pts/7">')
    assert console_of(running) == ("/dev/pts/7", LXC.console_log)


def test_a_strange_domain_has_no_console_of_ours() -> None:
    assert console_of("<domain><devices/></domain>") == ("", "")
