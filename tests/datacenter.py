"""A small data center of rows: nodes that pretend, a network, an image, and a hypervisor in a dictionary."""

from __future__ import annotations

from collections.abc import Callable

from django.db.models.functions import Now

from accounts.models import Account
from core.errors import Transient
from hypervisor.contract import GuestFacts, GuestSpec, Observation, Observed, Watch
from hypervisor.models import Node, NodePulse, NodeRoom, NodeStatus
from networks.models import Network
from volumes.models import BackupObject, BackupStorage, Image

GIB = 2**30


def node(name: str = "n1", *, vcpus: int = 100, memory_mib: int = 100_000, disk_bytes: int = 1000 * GIB) -> Node:
    """An online node for fake guests."""
    row = Node.objects.create(
        name=name, arch="x86_64", hypervisors=["fake"], vcpus=vcpus, memory_mib=memory_mib, disk_bytes=disk_bytes
    )
    NodeRoom.objects.create(node=row)
    NodePulse.objects.create(node=row, status=NodeStatus.ONLINE, heartbeat_at=Now())
    return row


def network(ipv4_network: str = "10.99.0.0/24", gateway: str = "10.99.0.1") -> Network:
    return Network.objects.create(
        name="default", ipv4_network=ipv4_network, gateway=gateway, bridge="vtbr0", is_default=True
    )


def account(name: str = "ours") -> Account:
    return Account.objects.filter(name=name).first() or Account.objects.create(name=name)


def image(holder: Node, *, raw_size_bytes: int = GIB) -> Image:
    storage = BackupStorage.objects.filter(node=holder).first() or BackupStorage.objects.create(
        name="local", node=holder
    )
    stored = BackupObject.objects.create(
        account=account(),
        name="fake",
        storage=storage,
        format="raw",
        state="available",
        size_bytes=raw_size_bytes,
        raw_size_bytes=raw_size_bytes,
        sha256="ab" * 32,
    )
    return Image.objects.create(
        account=account(), name="fake", state="available", backup_object=stored, hypervisor="fake", is_public=True
    )


class Hypervisor:
    """A driver whose guests are entries of `guests`; the tests change them behind its back."""

    def __init__(self) -> None:
        self.guests: dict[str, Observed] = {}
        self.made: dict[str, GuestFacts] = {}  # what `describe` tells of them
        self.released: list[str] = []
        self.is_mute = False
        self.before: dict[str, Callable[[Watch], None]] = {}  # called first by the method of that name

    def _set(self, word: str, uid: str, state: Observed, watch: Watch) -> Observation:
        watch.checkpoint()
        self.before.get(word, lambda watch: None)(watch)
        self.guests[uid] = state
        return self.observe(uid)

    def ensure_running(self, spec: GuestSpec, watch: Watch) -> Observation:
        return self._set("ensure_running", spec.uid, Observed.RUNNING, watch)

    def ensure_halted(self, spec: GuestSpec, watch: Watch, *, grace_s: float) -> Observation:
        return self._set("ensure_halted", spec.uid, Observed.HALTED, watch)

    def ensure_absent(self, spec: GuestSpec, watch: Watch) -> Observation:
        seen = self._set("ensure_absent", spec.uid, Observed.ABSENT, watch)
        del self.guests[spec.uid]
        return seen

    def release(self, uid: str) -> None:
        self.released.append(uid)

    def observe(self, uid: str) -> Observation:
        if self.is_mute:
            raise Transient("the hypervisor does not answer")
        return Observation(uid, self.guests.get(uid, Observed.ABSENT), "the test says so")

    def describe(self, uid: str) -> GuestFacts | None:
        return self.made.get(uid)

    def observe_all(self) -> list[Observation]:
        return [self.observe(uid) for uid in self.guests]
