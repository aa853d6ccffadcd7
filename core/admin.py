"""The base of every page of the admin: looking is free, changing goes through services."""

from __future__ import annotations

from typing import Any

from django.db.models import Model
from django.http import HttpRequest
from unfold.admin import ModelAdmin


class RowAdmin(ModelAdmin):
    """Rows newest first, without counting millions of them; nothing is deleted behind the services' back."""

    ordering = ["-created_at", "-id"]
    search_fields = ["uid"]
    show_full_result_count = False
    list_per_page = 50

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        base = ["uid", "created_at"] if obj is not None else []
        return [*base, *super().get_readonly_fields(request, obj)]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class LookingOnly(RowAdmin):
    """What nobody makes or edits by hand."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
