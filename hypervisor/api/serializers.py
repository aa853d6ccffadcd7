"""How nodes are printed."""

from __future__ import annotations

from rest_framework import serializers

from core.api.serializers import RowSerializer
from hypervisor.models import Node


class NodeSerializer(RowSerializer):
    status = serializers.CharField(source="pulse.status")
    heartbeat_at = serializers.DateTimeField(source="pulse.heartbeat_at")
    observed_at = serializers.DateTimeField(source="pulse.observed_at")
    vcpus_used = serializers.IntegerField(source="room.vcpus_used")
    memory_mib_used = serializers.IntegerField(source="room.memory_mib_used")
    disk_bytes_used = serializers.IntegerField(source="room.disk_bytes_used")
    acceleration = serializers.SerializerMethodField()

    class Meta:
        model = Node
        fields = [
            *RowSerializer.BASE_FIELDS,
            "name",
            "status",
            "scheduling_enabled",
            "arch",
            "hypervisors",
            "acceleration",
            "warnings",
            "vcpus",
            "vcpus_used",
            "memory_mib",
            "memory_mib_used",
            "disk_bytes",
            "disk_bytes_used",
            "heartbeat_at",
            "observed_at",
            "boot_id",
        ]

    def get_acceleration(self, node: Node) -> str | None:
        return node.acceleration or None
