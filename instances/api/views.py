"""GET and POST instances, their verbs, and their console log."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.scoped import AccountScopedViewSet, find
from accounts.models import SshKeyPair
from core.api.serializers import NothingInput
from core.errors import Forbidden, Invalid, NotFound
from hypervisor.files_client import read_console
from hypervisor.models import Node
from instances import services
from instances.api.serializers import InstanceSerializer, LaunchInput, PoweroffInput
from instances.filters import InstanceFilter
from instances.models import Instance
from operations.api.accepted import accepted
from operations.models import Operation
from volumes.models import Image

CONSOLE_BYTES = 65_536
MOST_CONSOLE_BYTES = 1_048_576


class InstanceViewSet(ListModelMixin, RetrieveModelMixin, AccountScopedViewSet):
    """Instances of the account: `POST instances` launches, `POST instances/{id}/{verb}` does one verb of its table."""

    rows = Instance.objects.with_parts()
    noun = "instance"
    serializer_class = InstanceSerializer
    filterset_class = InstanceFilter
    query_parameters = {"console_log": {"last_bytes"}}

    def create(self, request: Request) -> Response:
        asked = LaunchInput(data=request.data)
        asked.is_valid(raise_exception=True)
        wish = dict(asked.validated_data)
        wish["image"] = find(
            Image.objects.select_related("backup_object"), wish["image"], noun="image", request=request, field="image"
        )
        keys = SshKeyPair.objects.all()
        wish["ssh_keys"] = tuple(
            find(keys, uid, noun="ssh key pair", request=request, field="ssh_keys") for uid in wish["ssh_keys"]
        )
        wish["node"] = self._node(wish["node"])
        instance, operation = services.launch_instance(self.access.account, **wish, requested_by=self.access.who)
        return _accepted(instance, operation, just_placed=True)

    def poweroff(self, request: Request, uid: str) -> Response:
        asked = PoweroffInput(data=request.data)
        asked.is_valid(raise_exception=True)
        instance = self.get_object()
        return self._begun(
            instance, services.poweroff_instance(instance, requested_by=self.access.who, **asked.validated_data)
        )

    def poweron(self, request: Request, uid: str) -> Response:
        return self._plain_verb(request, services.poweron_instance)

    def retry(self, request: Request, uid: str) -> Response:
        return self._plain_verb(request, services.retry_instance)

    def terminate(self, request: Request, uid: str) -> Response:
        return self._plain_verb(request, services.terminate_instance)

    def console_log(self, request: Request, uid: str) -> HttpResponse:
        """The last bytes that the guest printed, as text."""
        instance = self.get_object()
        if instance.node is None:
            raise NotFound(f"{instance.uid} has no console: it was never on a node.", code="not_found")
        text = read_console(instance.node, instance.uid, last_bytes=_last_bytes(request))
        return HttpResponse(
            text, content_type="text/plain; charset=utf-8", headers={"X-Content-Type-Options": "nosniff"}
        )

    def _plain_verb(self, request: Request, service: Any) -> Response:
        NothingInput(data=request.data).is_valid(raise_exception=True)
        instance = self.get_object()
        return self._begun(instance, service(instance, requested_by=self.access.who))

    def _begun(self, instance: Instance, operation: Operation) -> Response:
        return _accepted(self.rows.get(pk=instance.pk), operation)

    def _node(self, uid: str) -> Node | None:
        if not uid:
            return None
        if not self.access.is_operator:
            raise Forbidden("Only an operator may choose the node.", code="operator_only", field="node")
        node = Node.objects.filter(uid=uid).first()
        if node is None:
            raise NotFound(f"There is no node {uid}.", code="not_found", field="node")
        return node


def _accepted(instance: Instance, operation: Operation, *, just_placed: bool = False) -> Response:
    document = InstanceSerializer(instance, context={"holders": {instance.uid: operation}}).data
    return accepted(document, operation, just_placed=just_placed)


def _last_bytes(request: Request) -> int:
    text = request.query_params.get("last_bytes", str(CONSOLE_BYTES))
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MOST_CONSOLE_BYTES):
        raise Invalid(
            f"last_bytes takes a number from 1 to {MOST_CONSOLE_BYTES}, not {text!r}.",
            code="invalid",
            field="last_bytes",
        )
    return int(text)
