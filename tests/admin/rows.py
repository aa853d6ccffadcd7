"""Rows of every model, as many as wanted, some of them with hostile words in every text that others can write."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from accounts import services
from accounts.models import AccessRecord, Account, Member, Role
from hypervisor.models import Node, NodePulse, NodeRoom, NodeStatus, Stray
from instances.models import Instance, Vif, VolumeAttachment
from networks.models import Lease, Network
from operations.models import Event, Operation, OperationSubject, Step
from operations.states import Hold, OperationState, StepState
from volumes.models import BackupObject, BackupStorage, Image, Volume

HOSTILE = '</td><script>alert("1")</script><img src="https://evil.example/x.png">'
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
FILES_TOKEN = "files-token-that-nobody-sees"
USER_DATA = "password=hunter2-of-the-tenant"


def make_rows(number: int, staff) -> Instance:
    """One more of everything, in ties with each other; returns the instance, which an operation holds."""
    account = Account.objects.create(name=f"acme {number} {HOSTILE}")
    Member.objects.create(user=staff, account=account, role=Role.OWNER)
    token, _ = services.issue_token(account, name=HOSTILE, role=Role.MEMBER, issued_by=staff)
    services.import_ssh_key_pair(account, name=HOSTILE, public_key=PUBLIC_KEY)
    AccessRecord.objects.create(token=token, who=HOSTILE, method="GET", path="/api/v1/x", account=account)
    node = make_node(number)
    network = Network.objects.create(
        account=account,
        name=HOSTILE,
        ipv4_network=f"10.9.{number}.0/24",
        gateway=f"10.9.{number}.1",
        bridge=f"b{number}",
    )
    storage = BackupStorage.objects.create(name=f"storage {number}", node=node)
    stored = BackupObject.objects.create(
        account=account, storage=storage, name=HOSTILE, format="gz", size_bytes=10, raw_size_bytes=2**30
    )
    image = Image.objects.create(
        account=account, name=HOSTILE, backup_object=stored, hypervisor="lxc", state="available", is_public=False
    )
    instance = Instance.objects.create(
        account=account,
        image=image,
        node=node,
        name=HOSTILE,
        hostname=f"host-{number}",
        state="running",
        hypervisor="lxc",
        vcpus=1,
        memory_mib=2048,
        slot=1,
        observed_reason=HOSTILE,
        user_data=USER_DATA,
        ssh_keys=[{"id": "ssh-00000000", "public_key": PUBLIC_KEY}],
        error={
            "class": "Permanent",
            "message": HOSTILE,
            "advice": HOSTILE,
            "place": "x.py:1",
            "operation": "op-00000000",
        },
    )
    volume = Volume.objects.create(
        account=account, size_bytes=2**30, format="raw", node=node, image=image, state="attached"
    )
    VolumeAttachment.objects.create(instance=instance, volume=volume, position=0, boot=True)
    vif = Vif(instance=instance, network=network, position=0)
    vif.lease = Lease.objects.create(
        network=network, ipv4=f"10.9.{number}.9", mac=f"52:54:00:00:00:{number:02x}", hostname="h", holder=vif.uid
    )
    vif.save()
    make_operation(instance, volume)
    return instance


def make_node(number: int) -> Node:
    node = Node.objects.create(
        name=f"node {number} {HOSTILE}",
        arch="x86_64",
        hypervisors=["kvm", "lxc"],
        acceleration="tcg",
        warnings=[HOSTILE],
        vcpus=16,
        memory_mib=16384,
        disk_bytes=2**40,
        files_token=FILES_TOKEN,
    )
    NodeRoom.objects.create(node=node)
    NodePulse.objects.create(node=node, status=NodeStatus.ONLINE, heartbeat_at=timezone.now())
    facts = {"vcpus": 1, "disks": [{"uid": HOSTILE}]}
    Stray.objects.create(node=node, kind="guest", name=f"i-stray{number:03}", hypervisor="kvm", facts=facts)
    return node


def make_operation(instance: Instance, volume: Volume) -> Operation:
    """A failed launch whose every text is hostile; it still holds the instance, so that lists show "busy with"."""
    now = timezone.now()
    began = now - timedelta(seconds=130)
    error = {
        "class": "Permanent",
        "message": HOSTILE,
        "advice": HOSTILE,
        "step": "volumes.build_volume",
        "place": "x:1",
    }
    operation = Operation.objects.create(
        account=instance.account,
        verb="instance.launch",
        subject_kind="instance",
        subject_uid=instance.uid,
        state=OperationState.FAILED,
        requested_by=HOSTILE,
        params={"force": True, "url": "https://example.org/?key=in-the-address"},
        error=error,
        undone=[HOSTILE],
        held=[f"the disk {volume.uid}"],
        started_at=began,
        ended_at=now,
    )
    OperationSubject.objects.create(operation=operation, kind="instance", uid=instance.uid, hold=Hold.OPEN)
    OperationSubject.objects.create(operation=operation, kind="volume", uid=volume.uid, hold=Hold.OPEN)
    attempt = {"worker": HOSTILE, "started_at": began.isoformat(), "ended_at": now.isoformat()}
    Step.objects.create(
        operation=operation,
        position=1,
        task="volumes.fetch_image",
        node=instance.node.uid,
        lane="bulk",
        state=StepState.DONE,
        started_at=began,
        ended_at=now,
        progress_done=3 * 2**29,
        progress_total=4 * 2**30,
        progress_unit="bytes",
        attempts=[
            {**attempt, "number": 1, "outcome": "lost", "error": HOSTILE},
            {**attempt, "number": 2, "outcome": "done", "error": None},
        ],
        result={"size_bytes": 2**30, "was_present": False, "note": HOSTILE},
        log=f"2026-03-01T13:02:11.004Z attempt 1 info {HOSTILE}",
    )
    Step.objects.create(
        operation=operation,
        position=2,
        task="volumes.build_volume",
        node=instance.node.uid,
        lane="bulk",
        state=StepState.FAILED,
        started_at=began,
        ended_at=now,
        attempts=[{**attempt, "number": 1, "outcome": "failed", "error": HOSTILE}],
        commands=[
            {"argv": ["qemu-img", "create", HOSTILE], "exit_code": 1, "output_tail": f"No space left\n{HOSTILE}"}
        ],
        error=error,
    )
    Event.objects.create(
        account=instance.account,
        subject_kind="instance",
        subject_uid=instance.uid,
        operation_uid=operation.uid,
        name="instance.launch.failed",
        message=f"{instance.uid} is error: {HOSTILE}",
    )
    return operation
