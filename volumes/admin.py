"""Images, backup objects, backup storages and volumes in the admin. Their states belong to the engine."""

from __future__ import annotations

from django.contrib import admin
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter
from unfold.decorators import display

from core.admin import RowAdmin, state_badge, uid_link
from core.admin_words import NOTHING, link
from core.units import size
from operations.colours import colours_of
from operations.past_admin import MovingAdmin
from volumes.models import BackupObject, BackupStorage, Image, Volume


@admin.register(Image)
class ImageAdmin(MovingAdmin):
    list_display = [
        "uid",
        "name",
        "state_shown",
        "hypervisor",
        "arch",
        "raw_size",
        "is_public",
        "object_link",
        "account_link",
        "created_at",
    ]
    list_filter = [("state", ChoicesDropdownFilter), "is_public", ("account", AutocompleteSelectFilter)]
    list_select_related = ["account", "backup_object"]
    search_fields = ["uid", "name"]
    may_edit = ("name", "is_public", "min_memory_mib")
    fields = [
        "uid",
        "name",
        "is_public",
        "min_memory_mib",
        "state_shown",
        "error_shown",
        "busy_with",
        "hypervisor",
        "arch",
        "os_type",
        "init",
        "root_device",
        "raw_size",
        "object_link",
        "account_link",
        "created_at",
        "see_also",
    ]

    state_shown = state_badge("state", colours_of(Image))
    object_link = uid_link("backup_object")

    @display(description="unpacked", ordering="backup_object__raw_size_bytes")
    def raw_size(self, image: Image) -> str:
        return size(image.backup_object.raw_size_bytes)


@admin.register(BackupObject)
class BackupObjectAdmin(MovingAdmin):
    list_display = [
        "uid",
        "name",
        "state_shown",
        "format",
        "stored",
        "unpacked",
        "storage_link",
        "account_link",
        "created_at",
    ]
    list_filter = [("state", ChoicesDropdownFilter), ("account", AutocompleteSelectFilter)]
    list_select_related = ["account", "storage"]
    search_fields = ["uid", "name", "sha256"]
    may_edit = ("name",)
    fields = [
        "uid",
        "name",
        "state_shown",
        "error_shown",
        "busy_with",
        "format",
        "stored",
        "unpacked",
        "sha256",
        "storage_link",
        "account_link",
        "created_at",
        "see_also",
    ]

    state_shown = state_badge("state", colours_of(BackupObject))
    storage_link = uid_link("storage")

    @display(description="stored", ordering="size_bytes")
    def stored(self, stored: BackupObject) -> str:
        return size(stored.size_bytes)

    @display(description="unpacked", ordering="raw_size_bytes")
    def unpacked(self, stored: BackupObject) -> str:
        return size(stored.raw_size_bytes)


@admin.register(BackupStorage)
class BackupStorageAdmin(RowAdmin):
    list_display = ["uid", "name", "node_link", "created_at"]
    list_select_related = ["node"]
    search_fields = ["uid", "name"]
    may_add = ("name", "node")
    may_edit = ("name",)
    autocomplete_fields = ["node"]
    fields = ["uid", "name", "node_link", "created_at", "see_also"]

    node_link = uid_link("node")


@admin.register(Volume)
class VolumeAdmin(MovingAdmin):
    list_display = [
        "uid",
        "state_shown",
        "size_shown",
        "format",
        "instance",
        "node_link",
        "image_link",
        "busy_with",
        "account_link",
        "created_at",
    ]
    list_filter = [
        ("state", ChoicesDropdownFilter),
        ("node", AutocompleteSelectFilter),
        ("account", AutocompleteSelectFilter),
    ]
    list_select_related = ["account", "node", "image", "attachment__instance"]
    search_fields = ["uid"]
    fields = [
        "uid",
        "state_shown",
        "error_shown",
        "busy_with",
        "size_shown",
        "format",
        "instance",
        "node_link",
        "image_link",
        "room_held",
        "account_link",
        "created_at",
    ]

    state_shown = state_badge("state", colours_of(Volume))
    node_link = uid_link("node")
    image_link = uid_link("image")

    @display(description="size", ordering="size_bytes")
    def size_shown(self, volume: Volume) -> str:
        return size(volume.size_bytes)

    @display(description="instance")
    def instance(self, volume: Volume) -> str:
        return link(volume.attachment.instance.uid) if hasattr(volume, "attachment") else NOTHING
