"""GET networks."""

from __future__ import annotations

from django.db.models import Count
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin

from accounts.api.scoped import AccountScopedViewSet
from networks.api.serializers import NetworkSerializer
from networks.models import Network


class NetworkViewSet(ListModelMixin, RetrieveModelMixin, AccountScopedViewSet):
    """The account's networks and those that the data center offers to everyone."""

    rows = Network.objects.annotate(leases_used=Count("leases"))
    noun = "network"
    serializer_class = NetworkSerializer
