"""Django's WSGI handler, with a budget of database time for each request."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.core.handlers.wsgi import WSGIHandler

from core.database import begin_request


class BudgetedHandler(WSGIHandler):
    """The budget starts before Django does: its `request_started` may already ask the database."""

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        begin_request()
        return super().__call__(environ, start_response)
