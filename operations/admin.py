"""Operations with their story, and beneath them steps, holds and events: all written by the engine alone."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter, DropdownFilter
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from core.admin import RowAdmin, state_badge, uid_link
from core.admin_words import NOTHING, ago, linked
from core.units import duration, size
from operations import register
from operations.api.serializers import StorySerializer
from operations.colours import OPERATION_COLOURS, STEP_COLOURS
from operations.models import Event, Operation, OperationSubject, Step


class VerbFilter(DropdownFilter):
    """By verb; the choices come from the verb tables, not from a million rows."""

    title = "verb"
    parameter_name = "verb"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = sorted(verb.full_name for noun in register.nouns.values() for verb in noun.verbs.values())
        return [(name, name) for name in names]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(verb=self.value()) if self.value() else queryset


class OpenFilter(DropdownFilter):
    """Those that still move, by the partial index that holds only them."""

    title = "in motion"
    parameter_name = "open"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "in motion"), ("no", "ended")]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(ended_at__isnull=self.value() == "yes") if self.value() else queryset


@admin.register(Operation)
class OperationAdmin(RowAdmin):
    list_display = ["uid", "state_shown", "verb", "subject", "requested_by", "account_link", "created_at", "took"]
    list_filter = [
        ("state", ChoicesDropdownFilter),
        OpenFilter,
        VerbFilter,
        ("account", AutocompleteSelectFilter),
    ]
    list_select_related = ["account"]
    search_fields = ["uid__startswith", "subject_uid__startswith"]
    search_help_text = "The beginning of an operation's id, or of the id of what it moves"
    paginator = InfinitePaginator
    fields = [
        ("state_shown", "verb"),
        ("moves", "account_link"),
        ("requested_by", "asked_with"),
        ("asked", "ran"),
        ("cancel_reason", "superseded_by_link"),
    ]
    change_form_outer_after_template = "operations/story.html"

    state_shown = state_badge("state", OPERATION_COLOURS)
    subject = uid_link("subject_uid", "subject")
    superseded_by_link = uid_link("superseded_by")

    @display(description="took")
    def took(self, operation: Operation) -> str:
        if operation.started_at is None:
            return NOTHING
        return duration(((operation.ended_at or timezone.now()) - operation.started_at).total_seconds())

    @display(description="moves")
    def moves(self, operation: Operation) -> str:
        subjects = sorted(operation.subjects.all(), key=lambda subject: subject.pk)
        return linked(", ".join(f"{subject.kind.replace('_', ' ')} {subject.uid}" for subject in subjects) or NOTHING)

    @display(description="asked with")
    def asked_with(self, operation: Operation) -> str:
        """Flags and numbers only: text may be an address with a key in it."""
        plain = {name: value for name, value in operation.params.items() if isinstance(value, bool | int)}
        return ", ".join(f"{name} {value}" for name, value in plain.items()) or NOTHING

    @display(description="asked")
    def asked(self, operation: Operation) -> str:
        return ago(operation.created_at)

    @display(description="ran")
    def ran(self, operation: Operation) -> str:
        if operation.started_at is None:
            return NOTHING
        until = f"to {operation.ended_at:%H:%M:%S}, " if operation.ended_at else "until now, "
        return f"{operation.started_at:%H:%M:%S} {until}{self.took(operation)}"

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> list[tuple[None, dict[str, Any]]]:
        was_cancelled = obj is not None and obj.cancel_reason
        return [(None, {"fields": self.fields if was_cancelled else self.fields[:-1]})]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        operation = self.get_object(request, object_id)
        story = StorySerializer(operation).data if operation else None
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), "story": story})


class ByPlainKey(RowAdmin):
    """Rows without a public id, in their own order."""

    ordering = ["-id"]
    paginator = InfinitePaginator


@admin.register(Step)
class StepAdmin(ByPlainKey):
    list_display = [
        "__str__",
        "state_shown",
        "operation_link",
        "node_link",
        "lane",
        "attempt",
        "progress",
        "started_at",
    ]
    list_filter = [("state", ChoicesDropdownFilter)]
    list_select_related = ["operation"]
    search_fields = ["operation__uid__exact", "node__exact"]
    search_help_text = "The id of an operation or of a node"
    fields = [
        "state_shown",
        "operation_link",
        "position",
        "task",
        "node_link",
        "lane",
        "attempt",
        "worker",
        "progress",
        "queued_at",
        "started_at",
        "ended_at",
        "lease_until",
        "not_before",
        "rings",
        "retries_left",
        "losses",
        "idle_timeout_s",
        "deadline_s",
    ]

    state_shown = state_badge("state", STEP_COLOURS)
    operation_link = uid_link("operation")
    node_link = uid_link("node")

    @display(description="progress")
    def progress(self, step: Step) -> str:
        if step.progress_done is None:
            return NOTHING
        known = [count for count in (step.progress_done, step.progress_total) if count is not None]
        if step.progress_unit == "bytes":
            return " of ".join(size(count) for count in known)
        return f"{' of '.join(str(count) for count in known)} {step.progress_unit}".strip()


@admin.register(OperationSubject)
class OperationSubjectAdmin(ByPlainKey):
    list_display = ["__str__", "operation_link", "kind", "subject", "hold"]
    list_filter = [("hold", ChoicesDropdownFilter)]
    list_select_related = ["operation"]
    search_fields = ["operation__uid__exact"]
    search_help_text = "The id of an operation"
    fields = ["operation_link", "kind", "subject", "hold"]

    operation_link = uid_link("operation")
    subject = uid_link("uid", "subject")


@admin.register(Event)
class EventAdmin(ByPlainKey):
    list_display = ["created_at", "name", "subject", "said", "operation_link"]
    list_filter = [("account", AutocompleteSelectFilter)]
    search_fields = ["subject_uid__exact", "operation_uid__exact"]
    search_help_text = "The id of an instance, a node … or of an operation"
    fields = ["created_at", "name", "subject", "said", "operation_link", "account_link"]

    subject = uid_link("subject_uid", "subject")
    operation_link = uid_link("operation_uid", "operation")

    @display(description="message")
    def said(self, event: Event) -> str:
        return linked(event.message)
