"""GET the strays of a node, POST to adopt one or to put it into quarantine; for operators."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.scoped import find, record_operator_access
from accounts.models import Account
from core.api.serializers import InputSerializer, NothingInput
from core.errors import NotFound
from hypervisor.api.views import OfNodes
from hypervisor.models import Stray
from instances import strays
from operations.api.accepted import accepted
from operations.api.moving import MovingSerializer
from volumes.models import Image


class StraySerializer(MovingSerializer):
    node = serializers.CharField(source="node.uid")

    class Meta:
        model = Stray
        fields = [*MovingSerializer.MOVING_FIELDS, "name", "kind", "node", "hypervisor", "observed", "facts", "seen_at"]


class AdoptInput(InputSerializer):
    account = serializers.CharField(max_length=255)
    image = serializers.CharField(max_length=255, required=False, default="")


class StrayViewSet(OfNodes):
    """What the node has of ours that no row knows. Named by its own name, i-… or vol-…."""

    def strays(self, request: Request, uid: str) -> Response:
        return Response({"items": StraySerializer(strays.strays_of(self.get_object()), many=True).data, "next": None})

    def stray(self, request: Request, uid: str, name: str) -> Response:
        return Response(StraySerializer(strays.stray_named(self.get_object(), name)).data)

    def adopt(self, request: Request, uid: str, name: str) -> Response:
        asked = AdoptInput(data=request.data)
        asked.is_valid(raise_exception=True)
        wish = asked.validated_data
        stray = strays.stray_named(self.get_object(), name)
        account = _account(request, wish["account"])
        image = None
        if wish["image"]:
            image = find(Image.objects.all(), wish["image"], noun="image", request=request, field="image")
        operation = strays.adopt_stray(stray, account=account, image=image, requested_by=request.auth.who)
        return self._accepted(stray, operation)

    def quarantine(self, request: Request, uid: str, name: str) -> Response:
        NothingInput(data=request.data).is_valid(raise_exception=True)
        stray = strays.stray_named(self.get_object(), name)
        operation = strays.quarantine_stray(stray, account=request.auth.account, requested_by=request.auth.who)
        return self._accepted(stray, operation)

    def _accepted(self, stray: Stray, operation: Any) -> Response:
        stray.refresh_from_db()
        return accepted(StraySerializer(stray).data, operation)


def _account(request: Request, uid: str) -> Account:
    account = Account.objects.filter(uid=uid).first()
    if account is None:
        raise NotFound(f"There is no account {uid}.", code="not_found", field="account")
    if account != request.auth.account:
        record_operator_access(request, account)
    return account
