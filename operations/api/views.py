"""GET operations, GET operations/{id}."""

from __future__ import annotations

from django.db.models import Prefetch
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin

from accounts.api.scoped import AccountScopedViewSet
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
