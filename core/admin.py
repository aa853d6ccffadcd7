"""The base of every page of the admin: looking is free, changing goes through services."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.db.models import Model
from django.forms import ModelForm
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.text import capfirst
from unfold.admin import ModelAdmin
from unfold.decorators import display

from core.admin_words import NOTHING, badge, link
from core.uid import is_uid


class RowAdmin(ModelAdmin):
    """Rows newest first, without counting millions of them; nothing is deleted behind the services' back.

    Nothing is added or edited either, but for the fields that a noun names: `may_add` while adding, `may_edit` later.
    """

    ordering = ["-created_at", "-id"]
    search_fields = ["uid"]
    show_full_result_count = False
    list_per_page = 50
    list_fullwidth = True
    list_filter_submit = True
    list_disable_select_all = True  # actions are for rows that a person has seen
    may_add: tuple[str, ...] = ()
    may_edit: tuple[str, ...] = ()

    @property
    def actions_detail_hide_default(self) -> bool:
        """The button "History" leads to edits by hand."""
        return not self.may_edit

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str] | tuple[str, ...]:
        return self.may_add if obj is None else super().get_fields(request, obj)

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> list[tuple[str | None, dict[str, Any]]]:
        return [(None, {"fields": self.may_add})] if obj is None else super().get_fieldsets(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        if obj is None:
            return []
        return [name for name in flatten_fieldsets(self.get_fieldsets(request, obj)) if name not in self.may_edit]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Model | None:
        """Rows answer to their public id too: /admin/instances/instance/i-3k9x02mf/change/."""
        by_uid = from_field is None and hasattr(self.model, "uid") and is_uid(object_id)
        return super().get_object(request, object_id, "uid" if by_uid else from_field)

    def save_model(self, request: HttpRequest, obj: Model, form: ModelForm, change: bool) -> None:
        """Write the edited columns alone: the engine may have moved the row since this page read it."""
        if change:
            obj.save(update_fields=[name for name in form.changed_data if name in self.may_edit])
        else:
            super().save_model(request, obj, form, change)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(self.may_add) and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(self.may_edit) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @display(description="account", ordering="account__uid")
    def account_link(self, row: Any) -> str:
        return link(row.account.uid, row.account.name) if row.account else NOTHING

    @display(description="see also")
    def see_also(self, row: Model) -> str:
        """The lists of the rows that point to this one."""
        here = [
            (f"{reverse(_list_of(field.related_model))}?{urlencode({f'{field.field.name}__id__exact': row.pk})}", field)
            for field in row._meta.get_fields(include_hidden=True)
            if field.one_to_many and field.related_model in admin.site._registry
        ]
        names = ((url, capfirst(field.related_model._meta.verbose_name_plural)) for url, field in here)
        return format_html_join(" · ", '<a class="text-link" href="{}">{}</a>', names) or NOTHING


def _list_of(model: type[Model]) -> str:
    return f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"


def uid_link(field: str, description: str = "") -> Callable[[ModelAdmin, Any], str]:
    """A column or line that links the row which `field` names: by a uid in a column, or by a foreign key."""

    @display(description=description or field.replace("_", " ").removesuffix(" uid"), ordering=field)
    def linked_row(self: ModelAdmin, row: Any) -> str:
        value = getattr(row, field)
        return link(value.uid if isinstance(value, Model) else value) if value else NOTHING

    return linked_row


def state_badge(field: str, colours: Mapping[str, str]) -> Callable[[ModelAdmin, Any], str]:
    """A column or line that shows `field` as a coloured label."""

    @display(description=field.rpartition("__")[2], ordering=field)
    def shown(self: ModelAdmin, row: Any) -> str:
        for name in field.split("__"):
            row = getattr(row, name, "")
        return badge(row, colours)

    return shown
