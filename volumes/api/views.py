"""GET volumes; GET and POST images and backup objects; PUT the content of a backup object."""

from __future__ import annotations

from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.scoped import AccountScopedViewSet, find
from core.errors import Forbidden
from operations.api.accepted import accepted
from volumes import services
from volumes.api.content import RawBody, receive
from volumes.api.serializers import (
    BackupObjectInput,
    BackupObjectSerializer,
    ImageInput,
    ImageSerializer,
    VolumeSerializer,
)
from volumes.models import BackupObject, Image, Volume


class VolumeViewSet(ListModelMixin, RetrieveModelMixin, AccountScopedViewSet):
    """Disks of the account."""

    rows = Volume.objects.select_related("account", "node", "image", "attachment__instance")
    noun = "volume"
    serializer_class = VolumeSerializer


class BackupObjectViewSet(ListModelMixin, RetrieveModelMixin, AccountScopedViewSet):
    """Stored bytes: `POST` makes one that waits for its content, `PUT …/content` brings it."""

    rows = BackupObject.objects.select_related("account", "storage__node")
    noun = "backup object"
    serializer_class = BackupObjectSerializer

    def create(self, request: Request) -> Response:
        asked = BackupObjectInput(data=request.data)
        asked.is_valid(raise_exception=True)
        stored = services.create_backup_object(self.access.account, **asked.validated_data)
        return Response(self._document(stored), status=201)

    def content(self, request: Request, uid: str) -> Response:
        stored = self.get_object()
        receive(stored, request)
        return Response(self._document(stored))

    def get_parsers(self) -> list:
        return [RawBody()] if self.action_map.get("put") == "content" else super().get_parsers()

    def _document(self, stored: BackupObject) -> dict:
        return BackupObjectSerializer(self.rows.get(pk=stored.pk)).data


class ImageViewSet(ListModelMixin, RetrieveModelMixin, AccountScopedViewSet):
    """Images of the account and public ones; `POST` registers a backup object or imports from a URL."""

    rows = Image.objects.select_related("account", "backup_object")
    noun = "image"
    serializer_class = ImageSerializer

    def create(self, request: Request) -> Response:
        asked = ImageInput(data=request.data)
        asked.is_valid(raise_exception=True)
        wish = dict(asked.validated_data)
        if wish["is_public"] and not self.access.is_operator:
            raise Forbidden(
                "Only an operator may publish an image to everyone.", code="operator_only", field="is_public"
            )
        if "url" in wish:
            return self._import(wish)
        stored = find(
            BackupObject.objects.all(),
            wish.pop("backup_object"),
            noun="backup object",
            request=request,
            field="backup_object",
        )
        image = services.register_image(self.access.account, backup_object=stored, **wish)
        return Response(self._document(image), status=201)

    def _import(self, wish: dict) -> Response:
        image, operation = services.import_image(
            self.access.account,
            **{"sha256": "", **wish},
            requested_by=self.access.who,
            is_operator=self.access.is_operator,
        )
        return accepted(self._document(image), operation)

    def _document(self, image: Image) -> dict:
        return ImageSerializer(self.rows.get(pk=image.pk)).data
