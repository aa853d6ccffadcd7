"""What a machine really has to offer as a node: counted, measured and tried, not believed."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from hypervisor.commands import run
from hypervisor.contract import Hypervisor, Permanent, Transient
from hypervisor.drivers.libvirt.capabilities import ask_drivers, has_idmapped_mounts, user_namespace_fault
from hypervisor.nat import dropping_chains
from hypervisor.probe_kvm import QEMU, kvm_works

_DEFAULT_SOCKET = Path("/run/libvirt/libvirt-sock")
_KVM_DEVICE = Path("/dev/kvm")


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One look at this machine. Sizes of the disk are those of the file system that the node's directory is on."""

    hostname: str
    arch: str  # "x86_64"
    vcpus: int
    memory_mib: int
    disk_total_bytes: int
    disk_free_bytes: int
    boot_id: str
    drivers: tuple[Hypervisor, ...]  # those whose guests can be made here
    acceleration: str  # of KVM guests: "kvm", or "tcg" (emulated)
    idmapped_mounts: bool  # False: owners of an LXC disk are moved once on the disk itself
    qemu_version: str  # "" when QEMU is not there
    warnings: tuple[str, ...]  # sentences for the operator


def probe_node(
    cache_dir: Path,
    libvirt_socket: Path | None = None,
    *,
    kernel: Path | None = None,
    qemu_user: str = "libvirt-qemu",
) -> NodeFacts:
    """Look at this machine. The first call after a boot takes up to 10 s, and a download if no kernel is at hand.

    `cache_dir` is made if missing and lies in the node's directory; `libvirt_socket` defaults to the machine's own
    libvirtd; `kernel` is a 64-bit Linux to try KVM with when /boot holds none. Never fails for what a node may lack:
    that is told in `warnings`.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    arch, boot_id, version = platform.machine(), read_boot_id(), qemu_version()
    warnings: list[str] = []
    drivers = _drivers(libvirt_socket or _DEFAULT_SOCKET, arch, version, warnings)
    idmapped_mounts = has_idmapped_mounts()
    if not idmapped_mounts:
        warnings.append(
            "This kernel has no idmapped mounts (they came with Linux 5.12): "
            "the first start of each LXC guest takes longer, as the owners of its files are moved on its disk."
        )
    acceleration = "tcg"
    if version:
        trial = kvm_works(
            cache_dir, boot_id=boot_id, qemu_version=version, kernel=kernel, qemu_user=qemu_user, device=_KVM_DEVICE
        )
        acceleration = "kvm" if trial.works else "tcg"
        if not trial.works:
            warnings.append(
                "KVM guests are emulated by QEMU (TCG), which is several times slower: "
                f"KVM does not work on this machine, because {trial.why}."
            )
    warnings += _firewall_warnings()
    disk = shutil.disk_usage(cache_dir)
    return NodeFacts(
        hostname=socket.gethostname(),
        arch=arch,
        vcpus=len(os.sched_getaffinity(0)),
        memory_mib=read_memory_mib(),
        disk_total_bytes=disk.total,
        disk_free_bytes=disk.free,
        boot_id=boot_id,
        drivers=drivers,
        acceleration=acceleration,
        idmapped_mounts=idmapped_mounts,
        qemu_version=version,
        warnings=tuple(warnings),
    )


def read_boot_id() -> str:
    """A new one at each boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read_memory_mib() -> int:
    """All memory of the machine."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemTotal:")) // 1024


def qemu_version() -> str:
    """What QEMU says of itself in its first line ("QEMU emulator version 7.2.22 …"); empty when it is not there."""
    try:
        asked = run([QEMU, "--version"])
    except Permanent:
        return ""
    return asked.stdout.partition("\n")[0].strip() if asked.returncode == 0 else ""


def _drivers(socket_path: Path, arch: str, version: str, warnings: list[str]) -> tuple[Hypervisor, ...]:
    faults = {answer.hypervisor: answer.fault for answer in ask_drivers(socket_path, arch)}
    if not version:
        faults[Hypervisor.KVM] = f"{QEMU} is not installed"
    faults[Hypervisor.LXC] = faults[Hypervisor.LXC] or user_namespace_fault()
    names = {Hypervisor.KVM: "KVM", Hypervisor.LXC: "LXC"}
    warnings += [f"No {names[kind]} guests on this node: {fault}." for kind, fault in faults.items() if fault]
    return tuple(kind for kind, fault in faults.items() if not fault)


def _firewall_warnings() -> list[str]:
    try:
        chains = dropping_chains()
    except (Permanent, Transient) as fault:
        return [fault.message]
    return [
        f"The host's own firewall drops packets of guests by policy in {chain}: "
        "unless it lets the bridges of this stack pass, guests get no address or do not reach the outside."
        for chain in chains
    ]
