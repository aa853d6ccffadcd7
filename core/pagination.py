"""Pages that stay right while rows come and go: by key (created_at desc, id desc), never by offset."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Model, Q, QuerySet
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response

from core.errors import Invalid

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_ID = 2**63 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)  # what PostgreSQL keeps


class KeysetPagination(BasePagination):
    """`{"items": […], "next": cursor or null}`; the next page is `?after=<cursor>`."""

    parameters = frozenset({"limit", "after"})

    def paginate_queryset(self, queryset: QuerySet, request: Request, view: Any = None) -> list[Model]:
        limit = _limit(request.query_params.get("limit"))
        rows = queryset.order_by("-created_at", "-id")
        after = request.query_params.get("after")
        if after is not None:
            created_at, row_id = _read_cursor(after)
            # Said this way PostgreSQL starts reading the index at the cursor.
            rows = rows.filter(Q(created_at__lte=created_at) & (Q(created_at__lt=created_at) | Q(id__lt=row_id)))
        page = list(rows[: limit + 1])
        self.next = _write_cursor(page[limit - 1]) if len(page) > limit else None
        return page[:limit]

    def get_paginated_response(self, data: list[dict[str, Any]]) -> Response:
        return Response({"items": data, "next": self.next})


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= MAX_LIMIT):
        raise Invalid(f"limit takes a number from 1 to {MAX_LIMIT}, not {text!r}.", code="invalid", field="limit")
    return int(text)


def _write_cursor(row: Model) -> str:
    moment_us = (row.created_at - EPOCH) // MICROSECOND
    return base64.urlsafe_b64encode(f"{moment_us} {row.pk}".encode()).decode().rstrip("=")


def _read_cursor(text: str) -> tuple[datetime, int]:
    try:
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
        moment_us, row_id = (int(number) for number in plain.split(" "))
        created_at = EPOCH + moment_us * MICROSECOND
    except (ValueError, OverflowError) as exc:  # not ours in one of many ways: base64, UTF-8, two numbers, a year
        raise _bad_cursor() from exc
    if created_at < EPOCH or not 0 <= row_id <= MAX_ID:
        raise _bad_cursor()
    return created_at, row_id


def _bad_cursor() -> Invalid:
    return Invalid(
        "after takes the `next` of an earlier page, unchanged; start again without it.",
        code="bad_cursor",
        field="after",
    )
