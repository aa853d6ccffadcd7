"""How volumes, images and backup objects are read and printed."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from core.api.serializers import InputSerializer, NameField
from operations.api.moving import MovingSerializer
from volumes.models import BackupObject, Format, Image, Volume

SHA256 = r"^[0-9a-f]{64}$"
MOST_BYTES = 64 * 2**40


class VolumeSerializer(MovingSerializer):
    account = serializers.CharField(source="account.uid")
    node = serializers.CharField(source="node.uid", allow_null=True)
    image = serializers.CharField(source="image.uid", allow_null=True)
    instance = serializers.SerializerMethodField()
    boot = serializers.SerializerMethodField()

    class Meta:
        model = Volume
        fields = [
            *MovingSerializer.MOVING_FIELDS,
            "size_bytes",
            "format",
            "instance",
            "boot",
            "image",
            "node",
            "account",
        ]

    def get_instance(self, volume: Volume) -> str | None:
        return volume.attachment.instance.uid if hasattr(volume, "attachment") else None

    def get_boot(self, volume: Volume) -> bool:
        return hasattr(volume, "attachment") and volume.attachment.boot


class BackupObjectSerializer(MovingSerializer):
    account = serializers.CharField(source="account.uid")
    storage = serializers.CharField(source="storage.uid")

    class Meta:
        model = BackupObject
        fields = [
            *MovingSerializer.MOVING_FIELDS,
            "name",
            "format",
            "size_bytes",
            "raw_size_bytes",
            "sha256",
            "storage",
            "account",
        ]


class BackupObjectInput(InputSerializer):
    name = NameField(required=False, default="")
    format = serializers.ChoiceField(choices=Format.choices)
    size_bytes = serializers.IntegerField(
        min_value=1, max_value=MOST_BYTES, required=False, allow_null=True, default=None
    )
    sha256 = serializers.RegexField(
        SHA256,
        required=False,
        default="",
        error_messages={"invalid": "A SHA-256 digest is 64 hexadecimal digits, in small letters."},
    )


class ImageSerializer(MovingSerializer):
    account = serializers.CharField(source="account.uid")
    backup_object = serializers.CharField(source="backup_object.uid")
    size_bytes = serializers.IntegerField(source="backup_object.raw_size_bytes")
    stored_size_bytes = serializers.IntegerField(source="backup_object.size_bytes")
    sha256 = serializers.CharField(source="backup_object.sha256")

    class Meta:
        model = Image
        fields = [
            *MovingSerializer.MOVING_FIELDS,
            "name",
            "hypervisor",
            "arch",
            "os_type",
            "init",
            "root_device",
            "min_memory_mib",
            "is_public",
            "size_bytes",
            "stored_size_bytes",
            "sha256",
            "backup_object",
            "account",
        ]


class ImageInput(InputSerializer):
    name = NameField()
    backup_object = serializers.CharField(required=False, max_length=255)
    url = serializers.CharField(required=False, max_length=2048)
    format = serializers.ChoiceField(choices=Format.choices, required=False)
    sha256 = serializers.RegexField(
        SHA256,
        required=False,
        error_messages={"invalid": "A SHA-256 digest is 64 hexadecimal digits, in small letters."},
    )
    arch = serializers.ChoiceField(choices=["x86_64"], default="x86_64")
    hypervisor = serializers.ChoiceField(choices=["kvm", "lxc", "fake"])
    os_type = serializers.ChoiceField(choices=["linux"], default="linux")
    init = serializers.ChoiceField(choices=["", "busybox", "systemd"], default="", allow_blank=True)
    root_device = serializers.RegexField(
        r"^(partition:[1-9][0-9]?)?$",
        default="",
        allow_blank=True,
        error_messages={"invalid": 'A root device is "" (the whole disk) or "partition:N".'},
    )
    min_memory_mib = serializers.IntegerField(min_value=0, max_value=1_048_576, default=0)
    is_public = serializers.BooleanField(default=False)

    def validate(self, wish: dict[str, Any]) -> dict[str, Any]:
        if ("backup_object" in wish) == ("url" in wish):
            raise serializers.ValidationError({"backup_object": ["Name either a backup object or a url, not both."]})
        if "url" in wish and "format" not in wish:
            raise serializers.ValidationError({"format": ["An import from a URL needs its format: raw or gz."]})
        for fact in ("format", "sha256"):
            if "backup_object" in wish and fact in wish:
                raise serializers.ValidationError({fact: [f"The {fact} of a backup object is known; leave it out."]})
        if wish["hypervisor"] == "lxc" and not wish["init"]:
            raise serializers.ValidationError({"init": ["An lxc image needs its init: busybox or systemd."]})
        return wish
