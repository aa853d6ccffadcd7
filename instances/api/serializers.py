"""How instances are read and printed."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from core.api.serializers import InputSerializer, NameField
from instances.models import Instance
from operations.api.moving import MovingSerializer
from operations.api.serializers import moment

MOST_VCPUS = 128
LEAST_MEMORY_MIB = 32
MOST_MEMORY_MIB = 1_048_576
MOST_VOLUME_BYTES = 64 * 2**40
MOST_USER_DATA_CHARACTERS = 65_536
MOST_KEYS = 16
MOST_GRACE_S = 3600


class InstanceSerializer(MovingSerializer):
    observed = serializers.SerializerMethodField()
    image = serializers.CharField(source="image.uid")
    node = serializers.CharField(source="node.uid", allow_null=True)
    account = serializers.CharField(source="account.uid")
    addresses = serializers.SerializerMethodField()
    vifs = serializers.SerializerMethodField()
    volumes = serializers.SerializerMethodField()
    ssh_keys = serializers.SerializerMethodField()

    class Meta:
        model = Instance
        fields = [
            *MovingSerializer.MOVING_FIELDS,
            "name",
            "hostname",
            "wanted",
            "observed",
            "image",
            "node",
            "hypervisor",
            "vcpus",
            "memory_mib",
            "addresses",
            "vifs",
            "volumes",
            "ssh_keys",
            "account",
            "terminated_at",
        ]

    def get_observed(self, instance: Instance) -> dict[str, Any]:
        return {
            "state": instance.observed,
            "reason": instance.observed_reason,
            "at": moment(instance.observed_at),
        }

    def get_addresses(self, instance: Instance) -> list[str]:
        return [vif.lease.ipv4 for vif in instance.cards if vif.lease]

    def get_vifs(self, instance: Instance) -> list[dict[str, Any]]:
        return [
            {
                "id": vif.uid,
                "network": vif.network.uid,
                "mac": vif.lease.mac if vif.lease else None,
                "ipv4": vif.lease.ipv4 if vif.lease else None,
            }
            for vif in instance.cards
        ]

    def get_volumes(self, instance: Instance) -> list[dict[str, Any]]:
        return [
            {
                "id": link.volume.uid,
                "boot": link.boot,
                "size_bytes": link.volume.size_bytes,
                "state": link.volume.state,
            }
            for link in instance.links
        ]

    def get_ssh_keys(self, instance: Instance) -> list[str]:
        return [key["id"] for key in instance.ssh_keys]


class LaunchInput(InputSerializer):
    image = serializers.CharField(max_length=255)
    name = NameField(required=False, default="")
    hostname = serializers.CharField(required=False, default="", max_length=255)
    vcpus = serializers.IntegerField(min_value=1, max_value=MOST_VCPUS, default=1)
    memory_mib = serializers.IntegerField(min_value=LEAST_MEMORY_MIB, max_value=MOST_MEMORY_MIB, default=256)
    volume_size_bytes = serializers.IntegerField(
        min_value=1, max_value=MOST_VOLUME_BYTES, required=False, allow_null=True, default=None
    )
    ssh_keys = serializers.ListField(
        child=serializers.CharField(max_length=255), max_length=MOST_KEYS, required=False, default=list
    )
    user_data = serializers.CharField(
        required=False, default="", allow_blank=True, trim_whitespace=False, max_length=MOST_USER_DATA_CHARACTERS
    )
    node = serializers.CharField(required=False, default="", max_length=255)


class PoweroffInput(InputSerializer):
    force = serializers.BooleanField(default=False)
    timeout_s = serializers.IntegerField(
        min_value=0, max_value=MOST_GRACE_S, required=False, allow_null=True, default=None
    )
