"""GET operations, GET operations/{id}, POST operations/{id}/cancel."""

from __future__ import annotations

from django.db.models import Prefetch
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api.scoped import AccountScopedViewSet
from core.api.serializers import NothingInput
from operations import services
from operations.api.accepted import location_of
from operations.api.serializers import OperationSerializer, StorySerializer
from operations.filters import OperationFilter
from operations.models import Operation, Step
from operations.querysets import OperationQuerySet


class OperationViewSet(ListModelMixin, RetrieveModelMixin, AccountScopedViewSet):
    """What is and was in motion; one alone is the whole story."""

    rows = Operation.objects.select_related("account")
    noun = "operation"
    filterset_class = OperationFilter

    def get_queryset(self) -> OperationQuerySet:
        """A list is read without what only the story tells: 64 KiB of log for each step."""
        steps = Step.objects.defer("log") if self.action == "list" else Step.objects.all()
        return super().get_queryset().prefetch_related(Prefetch("steps", steps))

    def get_serializer_class(self) -> type[OperationSerializer]:
        return OperationSerializer if self.action == "list" else StorySerializer

    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, uid: str) -> Response:
        """Stop it at its next safe point, and undo what it did."""
        NothingInput(data=request.data).is_valid(raise_exception=True)
        operation = services.cancel_operation(self.get_object(), requested_by=self.access.who)
        return Response(OperationSerializer(operation).data, status=202, headers=location_of(operation))
