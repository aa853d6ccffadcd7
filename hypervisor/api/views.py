"""GET nodes, for operators."""

from __future__ import annotations

from django.db.models import QuerySet
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request

from core.api.views import ApiViewSet
from core.errors import NotFound
from core.uid import is_uid
from hypervisor.api.serializers import NodeSerializer
from hypervisor.models import Node


class OfNodes(ApiViewSet):
    """Base of the routes below `nodes`: to everyone but operators there are none."""

    def initial(self, request: Request, *args, **kwargs) -> None:
        super().initial(request, *args, **kwargs)
        if not request.auth.is_operator:
            raise NotFound("Nodes are there for operators only.", code="not_found")

    def get_queryset(self) -> QuerySet[Node]:
        return Node.objects.select_related("room", "pulse")

    def get_object(self) -> Node:
        uid = self.kwargs["uid"]
        node = self.get_queryset().filter(uid=uid).first() if is_uid(uid) else None
        if node is None:
            raise NotFound(f"There is no node {uid}.", code="not_found")
        return node


class NodeViewSet(ListModelMixin, RetrieveModelMixin, OfNodes):
    """The machines that run guests."""

    serializer_class = NodeSerializer
