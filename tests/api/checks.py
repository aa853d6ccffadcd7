"""What every refusal must look like, and how to see that nothing was left behind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps

ROOMS = ("accounts", "operations", "hypervisor", "networks", "volumes", "instances")
SIGNS_OF_LIFE = ("last_used_at", "upload_seen_at")
MEMBERS = {"type", "title", "status", "detail", "code"}
FURTHER_MEMBERS = {"field", "operation", "state", "allowed_verbs", "error_id", "request_id"}


def told(answer: Any, status: int, code: str, *, field: str | None = None, names: tuple[str, ...] = ()) -> dict:
    """The answer is a well-formed problem document with this status and code, whose sentence names the things."""
    assert answer.status_code == status, answer.content
    body = problem(answer)
    assert body["code"] == code, body
    assert body.get("field") == field, body
    for thing in names:
        assert thing in body["detail"], body
    return body


def problem(answer: Any) -> dict:
    """The document of an error, if it is one that programs and people can rely on."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert MEMBERS <= body.keys() <= MEMBERS | FURTHER_MEMBERS, body
    assert body["type"] == "about:blank"
    assert body["status"] == answer.status_code
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", body["code"]), body
    assert body["title"]
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert body["detail"].strip().endswith((".", "?", ")", "`")), body
    if answer.status_code == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    if answer.status_code == 503:
        assert int(answer.headers["Retry-After"]) >= 1
    return body


def every_row() -> dict[str, list[dict[str, Any]]]:
    """All rows of all our tables, without signs of life, which are no change of anything."""
    rows = {}
    for room in ROOMS:
        for model in apps.get_app_config(room).get_models():
            found = list(model.objects.order_by("pk").values())
            for row in found:
                for sign in SIGNS_OF_LIFE:
                    row.pop(sign, None)
            rows[model._meta.label] = found
    return rows


@contextmanager
def nothing_changes() -> Iterator[None]:
    """No row is made, changed or lost inside of this block."""
    before = every_row()
    yield
    after = every_row()
    for label in before:
        assert after[label] == before[label], f"{label} was changed"
