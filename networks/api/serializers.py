"""How networks are printed."""

from __future__ import annotations

from rest_framework import serializers

from core.api.serializers import RowSerializer
from networks.leases import usable_addresses
from networks.models import Network


class NetworkSerializer(RowSerializer):
    leases_used = serializers.IntegerField()
    leases_free = serializers.SerializerMethodField()

    class Meta:
        model = Network
        fields = [
            *RowSerializer.BASE_FIELDS,
            "name",
            "ipv4_network",
            "gateway",
            "is_default",
            "leases_used",
            "leases_free",
        ]

    def get_leases_free(self, network: Network) -> int:
        return max(usable_addresses(network) - network.leases_used, 0)
