"""What surrounds every request: an id in its log lines, and no waiting behind a mute database."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponse

from core import database
from core.problem import database_away, refuse

log = structlog.get_logger("vdc.web")
Next = Callable[[HttpRequest], HttpResponse]
NEEDS_NO_DATABASE = ("/healthz", "/readyz", "/static/")


def log_requests(get_response: Next) -> Next:
    """Bind a request id to every log line of the request, answer it as X-Request-Id, and log how it ended."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request_id = secrets.token_hex(6)
        begun = time.monotonic()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            response = get_response(request)
            response["X-Request-Id"] = request_id
            if not request.path_info.startswith(NEEDS_NO_DATABASE):
                took_ms = round((time.monotonic() - begun) * 1000, 1)
                log.info(
                    "request", method=request.method, path=request.path_info, status=response.status_code, ms=took_ms
                )
        return response

    return middleware


def refuse_while_database_is_mute(get_response: Next) -> Next:
    """Answer 503 at once for a moment after the database was found mute; one request at a time tries again."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith(NEEDS_NO_DATABASE):
            return get_response(request)
        if not database.breaker.admits():
            return refuse(request, database_away())
        on_trial = database.breaker.is_tripped
        try:
            return get_response(request)
        finally:
            if on_trial:
                database.breaker.trial_over()

    return middleware
