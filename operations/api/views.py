"""GET operations, GET operations/{id}."""

from __future__ import annotations

from rest_framework.mixins import ListModelMixin, RetrieveModelMixin

from accounts.api.scoped import AccountScopedViewSet
from operations.api.serializers import OperationSerializer, StorySerializer
from operations.filters import OperationFilter
from operations.models import Operation


class OperationViewSet(ListModelMixin, RetrieveModelMixin, AccountScopedViewSet):
    """What is and was in motion; one alone is the whole story."""

    rows = Operation.objects.select_related("account").prefetch_related("steps")
    noun = "operation"
    filterset_class = OperationFilter

    def get_serializer_class(self) -> type[OperationSerializer]:
        return OperationSerializer if self.action == "list" else StorySerializer
