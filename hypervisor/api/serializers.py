"""How nodes are printed."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from core.api.serializers import RowSerializer
from hypervisor.models import Node
from operations import canary
from operations.api.serializers import moment


class NodeSerializer(RowSerializer):
    status = serializers.CharField(source="pulse.status")
    heartbeat_at = serializers.DateTimeField(source="pulse.heartbeat_at")
    observed_at = serializers.DateTimeField(source="pulse.observed_at")
    vcpus_used = serializers.IntegerField(source="room.vcpus_used")
    memory_mib_used = serializers.IntegerField(source="room.memory_mib_used")
    disk_bytes_used = serializers.IntegerField(source="room.disk_bytes_used")
    acceleration = serializers.SerializerMethodField()
    lanes = serializers.SerializerMethodField()

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
            "lanes",
        ]

    def get_acceleration(self, node: Node) -> str | None:
        return node.acceleration or None

    def get_lanes(self, node: Node) -> dict[str, dict[str, Any]]:
        """By lane: how its last canary fared. Empty while the node is offline, or not watched yet."""
        if "canaries" not in self.context:
            self.context["canaries"] = canary.by_node()
        return {
            one.lane: {
                "round_trip_ms": one.round_trip and round(one.round_trip.total_seconds() * 1000, 1),
                "answered_at": moment(one.heard_at),
                "silent_since": moment(one.silent_since),
            }
            for one in self.context["canaries"].get(node.uid, ())
        }
