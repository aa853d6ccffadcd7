"""Bases of the admin pages of nouns: what happened to a row, what holds it, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Model, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from unfold.decorators import display

from core.admin import RowAdmin
from core.admin_words import NOTHING, link
from operations.models import Event, Operation, OperationSubject
from operations.states import Hold

MOST_PAST = 20  # shown below a row; the lists have the rest


class PastAdmin(RowAdmin):
    """Base of nouns that things happen to: shows what was done to the row and what was said about it."""

    change_form_outer_before_template = "operations/explain_link.html"
    change_form_outer_after_template = "operations/past.html"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object(request, object_id)
        past = self._past(request, row.uid) if row else {}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **past})

    def _past(self, request: HttpRequest, uid: str) -> dict[str, Iterable[Model]]:
        past: dict[str, Iterable[Model]] = {}
        if request.user.has_perm("operations.view_operation"):
            past["past_operations"] = Operation.objects.filter(subject_uid=uid)[:MOST_PAST]
        if request.user.has_perm("operations.view_event"):
            past["past_events"] = Event.objects.filter(subject_uid=uid)[:MOST_PAST]
        return past


class MovingAdmin(PastAdmin):
    """Base of nouns that operations move: the state is shown, with its reason and the operation that holds the row."""

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).annotate(holder=_holder_uid())

    @display(description="busy with")
    def busy_with(self, row: Any) -> str:
        return link(row.holder) if row.holder else NOTHING

    @display(description="error")
    def error_shown(self, row: Any) -> str:
        return render_to_string("operations/fault.html", {"fault": row.error}) if row.error else NOTHING


def _holder_uid() -> Subquery:
    """The operation that holds a row now, as a column of its list."""
    held = OperationSubject.objects.filter(uid=OuterRef("uid"), hold=Hold.OPEN)
    return Subquery(held.values("operation__uid")[:1])
