"""The words between the control plane and a node: specs go out, observations come back.

Drivers, the image store and the bridges import this module and nothing else of ours.
Everything is frozen and made of plain values, so that a spec can be printed, compared and kept as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

from core.errors import Cancelled, Fenced, Permanent, Transient

__all__ = [
    "Cancelled",
    "CommandRecord",
    "DiskSpec",
    "Fenced",
    "GuestFacts",
    "GuestSpec",
    "Hypervisor",
    "LeaseSpec",
    "NetworkSpec",
    "NicSpec",
    "Observation",
    "Observed",
    "Permanent",
    "SeedSpec",
    "SourceSpec",
    "StoreEntry",
    "Transient",
    "VolumeFile",
    "VolumeSpec",
    "Watch",
]


class Hypervisor(StrEnum):
    KVM = "kvm"
    LXC = "lxc"
    FAKE = "fake"


class Observed(StrEnum):
    """What a node sees of a guest; never mixed with the state that we believe."""

    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"  # powered off in order: by itself or because we asked
    CRASHED = "crashed"  # its QEMU or init died, or the guest panicked
    ABSENT = "absent"  # the node does not know it
    UNKNOWN = "unknown"  # nobody could ask; never read as "gone"


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at one guest. `reason` is the hypervisor's own word for how it came there."""

    uid: str
    state: Observed
    reason: str = ""
    seen_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """A tool that was run: for the story of the step."""

    argv: tuple[str, ...]
    exit_code: int
    output_tail: str = ""  # last lines of stdout and stderr, at most 2,000 characters


class Watch(Protocol):
    """How long work stays in touch with the step that it belongs to.

    Safe to call from the thread that runs the step only; all calls return in microseconds but `pause`.
    """

    def checkpoint(self) -> None:
        """A safe point: raises Cancelled or Fenced if the work is no longer wanted."""

    def pause(self, seconds: float) -> None:
        """Wait that long; raises Cancelled or Fenced as soon as the work is no longer wanted."""

    def progress(self, done: int, total: int | None, unit: str) -> None:
        """Say how far the work is; `unit` is "bytes", "seconds" or "steps". Also proof of life."""

    def ran(self, command: CommandRecord) -> None:
        """Put a finished command into the story."""


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """One disk of a guest. `path` is absolute on the node; `uid` (vol-…) is also the serial that the guest sees."""

    uid: str
    path: str
    format: str  # "qcow2" or "raw"
    size_bytes: int
    boot: bool = False


@dataclass(frozen=True, slots=True)
class NicSpec:
    """One network card. `host_interface` comes from numbers and is at most 15 bytes."""

    mac: str  # "52:54:00:ab:cd:ef"
    ipv4: str
    bridge: str
    host_interface: str


@dataclass(frozen=True, slots=True)
class SeedSpec:
    """NoCloud data for the first boot. `user_data` is passed on unread."""

    instance_uid: str
    hostname: str
    authorized_keys: tuple[str, ...] = ()
    user_data: str = ""


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """A guest as its driver needs it, complete: a driver asks nobody anything."""

    uid: str
    slot: int  # small number, unique among the guests of the node
    hypervisor: Hypervisor
    arch: str  # "x86_64"
    vcpus: int
    memory_mib: int
    disks: tuple[DiskSpec, ...]
    nics: tuple[NicSpec, ...]
    seed: SeedSpec
    init: str = ""  # LXC: "busybox" (stops on SIGTERM) or "systemd" (stops on SIGRTMIN+3)
    root_device: str = ""  # LXC: "" whole disk, or "partition:1"
    uid_base: int = 0  # LXC: first of the 65,536 host user ids of this guest
    console_log: str = ""  # absolute path; the driver or the observer keeps it below its limit


@dataclass(frozen=True, slots=True)
class GuestFacts:
    """What a guest is made of, as its hypervisor tells it. A disk's `uid` is what its file is named after."""

    uid: str
    vcpus: int
    memory_mib: int
    disks: tuple[DiskSpec, ...]
    nics: tuple[NicSpec, ...]  # without addresses: the hypervisor does not know them


@dataclass(frozen=True, slots=True)
class LeaseSpec:
    mac: str
    ipv4: str
    hostname: str


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """One network as a node builds it: bridge with the gateway's address, DHCP for static hosts, NAT to the outside."""

    uid: str
    bridge: str
    ipv4_network: str  # "10.77.0.0/24"
    gateway: str  # "10.77.0.1": the bridge's own address
    dns: tuple[str, ...] = ()
    leases: tuple[LeaseSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """Where the bytes of a backup object are, and what they must turn out to be."""

    url: str  # http(s)://… or file:///…
    format: str  # "raw" or "gz"
    sha256: str  # of the stored bytes, 64 lower-case hex digits; "" when unknown (first import)
    stored_size_bytes: int | None  # None when unknown
    raw_size_bytes: int | None  # None when unknown
    bearer_token: str = field(default="", repr=False)
    public_addresses_only: bool = False  # refuse loopback, private and link-local targets, after each redirect too


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """A whole, verified raw image on the node, proved by its receipt."""

    sha256: str  # of the stored bytes: the key of the entry
    path: str
    stored_size_bytes: int
    raw_size_bytes: int
    was_present: bool  # True: nothing was transferred


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A volume file to be: a clone of the store entry `base_sha256` grown to `size_bytes`, or blank."""

    uid: str
    format: str  # "qcow2" (KVM) or "raw" (LXC)
    size_bytes: int
    base_sha256: str = ""


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """A whole volume on the node, proved by its receipt."""

    uid: str
    path: str
    format: str
    size_bytes: int
    was_present: bool


def hypervisors(names: Sequence[str]) -> tuple[Hypervisor, ...]:
    """Read names ("kvm", "lxc", "fake") as hypervisors; ValueError names the unknown one."""
    return tuple(Hypervisor(name) for name in names)
