"""GET the trash of a node, POST to restore an entry, DELETE one for good; for operators."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.scoped import record_operator_access
from core.api.serializers import NothingInput
from hypervisor.api.views import OfNodes
from hypervisor.files_client import read_trash
from operations.api.accepted import accepted
from volumes import trash
from volumes.api.serializers import VolumeSerializer
from volumes.models import Volume


class TrashViewSet(OfNodes):
    """What was discarded on a node and is kept for a while, oldest first. The node itself is asked."""

    def trash(self, request: Request, uid: str) -> Response:
        return Response({"items": [_document(told) for told in read_trash(self.get_object())], "next": None})

    def restore(self, request: Request, uid: str, entry: str) -> Response:
        NothingInput(data=request.data).is_valid(raise_exception=True)
        volume, operation = trash.restore_volume(
            self.get_object(), entry, account=request.auth.account, requested_by=request.auth.who
        )
        if volume.account_id != request.auth.account.id:
            record_operator_access(request, volume.account)
        fresh = Volume.objects.select_related("account", "node", "image", "attachment__instance").get(pk=volume.pk)
        return accepted(VolumeSerializer(fresh).data, operation)

    def delete(self, request: Request, uid: str, entry: str) -> Response:
        trash.delete_volume_for_good(self.get_object(), entry, requested_by=request.auth.who)
        return Response(status=204)


def _document(told: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": told["name"],
        "volume": told["uid"],
        "account": told["owner"] or None,
        "reason": told["reason"],
        "operation": told["operation"] or None,
        "format": told["format"] or None,
        "volume_size_bytes": told["volume_size_bytes"],
        "disk_bytes": told["size_bytes"],
        "discarded_at": told["discarded_at"].replace("+00:00", "Z"),
        "expires_at": told["expires_at"].replace("+00:00", "Z"),
    }
