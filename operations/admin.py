"""Operations with their story, and beneath them steps, holds and events: all written by the engine alone."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter, DropdownFilter
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.paginator import InfinitePaginator

from core.admin import RowAdmin, state_badge, uid_link
from core.admin_words import NOTHING, ago, linked
from core.errors import Refusal
from core.units import duration, size
from operations import register, services
from operations.api.explain import explained
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
        "request_id",
        "resumes_link",
        ("cancel_reason", "superseded_by_link"),
    ]
    actions_detail = ["cancel"]
    change_form_outer_before_template = "operations/explain_link.html"
    change_form_outer_after_template = "operations/story.html"

    state_shown = state_badge("state", OPERATION_COLOURS)
    subject = uid_link("subject_uid", "subject")
    superseded_by_link = uid_link("superseded_by")
    resumes_link = uid_link("resumes", "goes on with")

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
        *always, resumes, cancelled = self.fields
        if obj is not None:
            always += [resumes] * bool(obj.resumes) + [cancelled] * bool(obj.cancel_reason)
        return [(None, {"fields": always})]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        operation = self.get_object(request, object_id)
        story = StorySerializer(operation).data if operation else None
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), "story": story})

    def get_urls(self) -> list[URLPattern]:
        explain = self.admin_site.admin_view(self.explain)
        return [path("explain/<str:uid>/", explain, name="explain"), *super().get_urls()]

    def explain(self, request: HttpRequest, uid: str) -> HttpResponse:
        """The page of any row: what is wrong with it, why, and what helps."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        document = explained(uid)
        if document is None:
            raise Http404
        shown = {"title": f"{uid} explained", "opts": self.opts, "explained": document}
        return TemplateResponse(request, "operations/explain.html", {**self.admin_site.each_context(request), **shown})

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """To cancel is what changing an operation means."""
        return request.user.has_perm("operations.change_operation")

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[UnfoldAction]:
        operation = self.get_object(request, object_id)
        may_end = operation is not None and operation.ended_at is None and not operation.cancel_reason
        return super().get_actions_detail(request, object_id) if may_end else []

    @action(description="Cancel", permissions=["operate"], icon="cancel", variant=ActionVariant.DANGER)
    def cancel(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask first; do it when the answer to that comes back. A GET never does anything."""
        operation = self.get_object(request, object_id)
        if operation is None:
            raise Http404
        page = reverse("admin:operations_operation_change", args=[object_id])
        if request.method == "POST" and "sure" in request.POST:
            self._cancel(request, operation)
            return HttpResponseRedirect(page)
        asked = {"title": "Cancel", "opts": self.opts, "original": operation, "operation": operation, "back": page}
        return TemplateResponse(request, "operations/cancel.html", {**self.admin_site.each_context(request), **asked})

    def _cancel(self, request: HttpRequest, operation: Operation) -> None:
        try:
            services.cancel_operation(operation, requested_by=f"staff user {request.user.get_username()}")
        except Refusal as refused:
            self.message_user(request, linked(refused.detail), messages.ERROR)
        else:
            self.message_user(request, linked(f"{operation.uid} was asked to stop."), messages.SUCCESS)


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
