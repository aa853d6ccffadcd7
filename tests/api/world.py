"""Rows as a running data center has them, made straight in the database; no process serves them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

from django.db.models import Model
from django.db.models.functions import Now

from accounts import services as accounts
from accounts.models import Account, ApiToken, Role, SshKeyPair
from hypervisor.models import Node, NodePulse, NodeRoom, NodeStatus
from instances import services as instances
from instances.models import Instance, Vif, VolumeAttachment
from networks import leases
from networks.models import Network
from operations.models import Operation
from volumes.models import BackupObject, BackupStorage, Image, Volume

NOBODY_LISTENS = "http://127.0.0.1:9"
GIB = 2**30
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"

_numbers = itertools.count(1)


def data_center(**changes: Any) -> Node:
    """One node with its network and its backup storage, as `make up` leaves them."""
    node = another_node(**{"files_url": NOBODY_LISTENS} | changes)
    Network.objects.create(
        is_default=True, name="default", ipv4_network="10.77.0.0/24", gateway="10.77.0.1", bridge="v0br0"
    )
    BackupStorage.objects.create(name="local", node=node)
    return node


def another_node(**changes: Any) -> Node:
    facts = {
        "name": f"node-{next(_numbers)}",
        "arch": "x86_64",
        "hypervisors": ["kvm", "lxc"],
        "acceleration": "tcg",
        "vcpus": 1024,
        "memory_mib": 1024 * 1024,
        "disk_bytes": 1024 * GIB,
    }
    node = Node.objects.create(**facts | changes)
    NodeRoom.objects.create(node=node)
    NodePulse.objects.create(node=node, status=NodeStatus.ONLINE, heartbeat_at=Now())
    return node


def backup_object(account: Account, **changes: Any) -> BackupObject:
    facts = {
        "name": "disk",
        "storage": BackupStorage.objects.get(),
        "format": "gz",
        "state": "available",
        "size_bytes": GIB // 4,
        "raw_size_bytes": GIB,
        "sha256": hashlib.sha256(f"{next(_numbers)}".encode()).hexdigest(),
    }
    return BackupObject.objects.create(account=account, **facts | changes)


def image(account: Account, **changes: Any) -> Image:
    facts = {"name": "busybox", "state": "available", "hypervisor": "lxc", "init": "busybox"}
    stored = changes.pop("backup_object", None) or backup_object(account)
    return Image.objects.create(account=account, backup_object=stored, **facts | changes)


def volume(account: Account, **changes: Any) -> Volume:
    facts = {"state": "available", "size_bytes": GIB, "format": "raw", "node": Node.objects.first()}
    return Volume.objects.create(account=account, **facts | changes)


def network(account: Account) -> Network:
    """A network of one account's own."""
    number = next(_numbers)
    return Network.objects.create(
        account=account,
        name="private",
        ipv4_network=f"10.{100 + number // 256 % 100}.{number % 256}.0/24",
        gateway=f"10.{100 + number // 256 % 100}.{number % 256}.1",
        bridge=f"v1br{number}",
    )


def instance(account: Account, **changes: Any) -> Instance:
    """A running instance with a disk and an address; no operation has made it."""
    node = changes.pop("node", None) or Node.objects.first()
    facts = {"name": "web", "hostname": f"web-{next(_numbers)}", "state": "running", "vcpus": 1, "memory_mib": 256}
    made_of = changes.pop("image", None) or image(account)
    row = Instance.objects.create(
        account=account, image=made_of, hypervisor=made_of.hypervisor, node=node, **facts | changes
    )
    disk = volume(account, state="attached", image=made_of, node=node)
    VolumeAttachment.objects.create(instance=row, volume=disk, position=0, boot=True)
    vif = Vif(instance=row, network=Network.objects.get(is_default=True), position=0)
    vif.lease = leases.lease(vif.network, holder=vif.uid, hostname=row.hostname)
    vif.save(force_insert=True)
    return row


def operation(account: Account) -> Operation:
    """An open operation: somebody powers an instance off."""
    return instances.poweroff_instance(instance(account), requested_by="somebody")


def token(account: Account) -> ApiToken:
    return accounts.issue_token(account, name="door", role=Role.VIEWER, issued_by=None)[0]


def ssh_key_pair(account: Account) -> SshKeyPair:
    return accounts.import_ssh_key_pair(account, name="laptop", public_key=KEY)


# How to have one row of each noun that routes name.
SAMPLES: dict[type[Model], Callable[[Account], Any]] = {
    ApiToken: token,
    SshKeyPair: ssh_key_pair,
    Network: network,
    BackupObject: backup_object,
    Image: image,
    Volume: volume,
    Instance: instance,
    Operation: operation,
    Node: lambda account: Node.objects.first(),
}


def sample(model: type[Model], account: Account) -> Any:
    """A row of this noun that belongs to the account."""
    assert model in SAMPLES, f"tests/api/world.py makes no {model.__name__} yet: add it, and its routes are walked too"
    return SAMPLES[model](account)
