"""Bring volumes back from the trash of a node, or delete them there for good, because an operator asked."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from accounts.models import Account
from core.errors import Conflict, NotFound
from hypervisor import files_client
from hypervisor.models import Node
from operations import engine
from operations.models import Operation
from volumes.models import Volume
from volumes.states import VolumeState
from volumes.verbs import RESTORE


def restore_volume(node: Node, entry: str, *, account: Account, requested_by: str) -> tuple[Volume, Operation]:
    """The volume of a trash entry, on its way back; it takes room on its node again.

    A disk that never had a row gets one: of the account that its entry names, else of `account`.
    Refusals: NotFound for an entry, Unavailable when the node does not answer, Conflict "no_room" or "wrong_state".
    """
    told = next((one for one in files_client.read_trash(node) if one["name"] == entry), None)
    if told is None:
        raise NotFound(f"The trash of {node} has no entry {entry}.", code="not_found")
    with transaction.atomic():
        volume = Volume.objects.filter(uid=told["uid"]).first() or _row(node, told, account)
        if volume.node_id != node.pk:
            raise Conflict(
                f"{volume.uid} belongs to {volume.node}; what lies in the trash of {node} is not that volume.",
                code="elsewhere",
                state=volume.state,
            )
        operation = engine.begin(RESTORE, volume, requested_by=requested_by, params={"entry": entry})
    return volume, operation


def _row(node: Node, told: dict[str, Any], account: Account) -> Volume:
    if not told["volume_size_bytes"]:
        raise Conflict(
            f"{told['name']} has no volume file that could be read, so nothing can be restored.", code="not_a_volume"
        )
    return Volume.objects.create(
        uid=told["uid"],
        account=Account.objects.filter(uid=told["owner"]).first() or account,
        node=node,
        format=told["format"],
        size_bytes=told["volume_size_bytes"],
        state=VolumeState.DELETED,
    )


def delete_volume_for_good(node: Node, entry: str, *, requested_by: str) -> None:
    """Delete a trash entry now; the node tells of it with an event."""
    files_client.delete_trash(node, entry, why=f"{requested_by} asked for it")
