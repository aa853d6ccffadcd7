"""What disks are made of: backup storages, backup objects, images, and volumes."""

from __future__ import annotations

from django.db import models

from accounts.owned import OwnedQuerySet, OwnedRow
from core.rows import Row
from hypervisor.models import Node
from volumes.states import ImageState, VolumeState


class Format(models.TextChoices):
    RAW = "raw"
    GZ = "gz"


class BackupStorage(Row):
    """A directory on `node`, which its files server also serves over HTTP."""

    PREFIX = "bkst"

    name = models.CharField(max_length=255, unique=True)
    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="+")

    def __str__(self) -> str:
        return f"{self.uid} ({self.name})"

    def url_of(self, key: str) -> str:
        """Where the bytes of an object are; the node's files token opens it."""
        return f"{self.node.files_url}/storage/{key}"


class BackupObject(OwnedRow):
    """Stored bytes: `size_bytes` as stored, `raw_size_bytes` unpacked, `sha256` of the stored ones."""

    PREFIX = "bo"
    KIND = "backup_object"
    MOVING = (ImageState.PENDING, ImageState.CREATING)

    name = models.CharField(max_length=255)
    storage = models.ForeignKey(BackupStorage, on_delete=models.PROTECT, related_name="objects_stored")
    format = models.CharField(max_length=16, choices=Format)
    state = models.CharField(max_length=16, choices=ImageState, default=ImageState.PENDING)
    error = models.JSONField(null=True)
    size_bytes = models.PositiveBigIntegerField(null=True)
    raw_size_bytes = models.PositiveBigIntegerField(null=True)
    sha256 = models.CharField(max_length=64, blank=True)
    upload = models.CharField(max_length=16, blank=True)  # names the upload that brings the content now
    upload_seen_at = models.DateTimeField(null=True)  # when it last was heard of


class ImageQuerySet(OwnedQuerySet):
    """Public images are everybody's to see."""

    def visible_to(self, access) -> ImageQuerySet:
        return self.filter(models.Q(account_id=access.account.id) | models.Q(is_public=True))

    def reachable_by(self, access) -> ImageQuerySet:
        return self.all() if access.is_operator else self.visible_to(access)


class Image(OwnedRow):
    """What an instance boots from: a backup object, and what a hypervisor must know of it."""

    PREFIX = "wmi"
    KIND = "image"
    MOVING = (ImageState.PENDING, ImageState.CREATING)

    name = models.CharField(max_length=255)
    state = models.CharField(max_length=16, choices=ImageState, default=ImageState.PENDING)
    error = models.JSONField(null=True)
    backup_object = models.ForeignKey(BackupObject, on_delete=models.PROTECT, related_name="images")
    hypervisor = models.CharField(max_length=16)
    arch = models.CharField(max_length=32, default="x86_64")
    os_type = models.CharField(max_length=32, default="linux")
    init = models.CharField(max_length=32, blank=True)  # lxc: "busybox" or "systemd"
    root_device = models.CharField(max_length=64, blank=True)  # lxc: "" or "partition:1"
    min_memory_mib = models.PositiveIntegerField(default=0)
    is_public = models.BooleanField(default=False)

    objects = ImageQuerySet.as_manager()


class Volume(OwnedRow):
    """A disk on a node. `room_held`: its bytes are counted as taken there."""

    PREFIX = "vol"
    KIND = "volume"
    MOVING = (VolumeState.SCHEDULING, VolumeState.PENDING, VolumeState.CREATING, VolumeState.DELETING)

    state = models.CharField(max_length=16, choices=VolumeState, default=VolumeState.SCHEDULING)
    error = models.JSONField(null=True)
    size_bytes = models.PositiveBigIntegerField()
    format = models.CharField(max_length=16)  # "qcow2" or "raw"
    node = models.ForeignKey(Node, null=True, on_delete=models.PROTECT, related_name="+")
    image = models.ForeignKey(Image, null=True, on_delete=models.PROTECT, related_name="+")
    room_held = models.BooleanField(default=False)
