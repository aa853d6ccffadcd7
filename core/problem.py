"""Errors as people and programs read them: RFC 9457 problem documents for the API, plain pages elsewhere.

Nothing here shows a traceback: an unexpected error gets an id that is found again, with its traceback, in the log.
"""

from __future__ import annotations

import secrets
import sys
from http import HTTPStatus
from typing import Any

import structlog
from django.core.exceptions import DisallowedHost
from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.db import connections
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils.html import format_html
from rest_framework import exceptions

from core import database
from core.errors import Refusal, Unavailable, Unreachable
from core.logs import request_id

API_PREFIX = "/api/"
log = structlog.get_logger("vdc.web")


def problem(status: int, *, title: str, detail: str, code: str, **extra: Any) -> JsonResponse:
    """A problem document. `extra` members that are None or empty strings are left out."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}
    extra["request_id"] = request_id()
    body |= {name: value for name, value in extra.items() if value not in (None, "")}
    return JsonResponse(body, status=status, content_type="application/problem+json")


def refused(refusal: Refusal) -> JsonResponse:
    """A refusal as its problem document."""
    response = problem(
        refusal.status,
        title=refusal.title,
        detail=refusal.detail,
        code=refusal.code,
        field=refusal.field,
        **refusal.extra,
    )
    if isinstance(refusal, Unavailable):
        response["Retry-After"] = str(refusal.retry_after_s)
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        response["WWW-Authenticate"] = "Bearer"
    return response


def answer(exc: Exception, context: dict[str, Any]) -> HttpResponse:
    """Django REST framework's exception handler: every exception of an API view becomes a problem document."""
    refusal = as_refusal(exc)
    if refusal is not None:
        return refused(refusal)
    if isinstance(exc, Http404):
        exc = exceptions.NotFound()
    elif isinstance(exc, DjangoPermissionDenied):
        exc = exceptions.PermissionDenied()
    if isinstance(exc, exceptions.APIException):
        return _framework_error(exc)
    return _unexpected(context["request"]._request, exc)


def as_refusal(exc: BaseException) -> Refusal | None:
    """The refusal that stands for `exc`: itself, or the 503 of a database that is away; None for all else."""
    if isinstance(exc, Refusal):
        return exc
    if isinstance(exc, Unreachable):
        return Unavailable(exc.message, code="unreachable")
    if database.unreachable(exc):
        log.warning("database_unreachable", error=str(exc).strip().splitlines()[0] if str(exc).strip() else repr(exc))
        if database.busy(exc):
            return Unavailable(
                "The database is busy with something that holds what this request needs; try again in a moment.",
                code="database_busy",
            )
        for connection in connections.all(initialized_only=True):
            connection.close()  # never trusted again
        return database_away()
    return None


def database_away() -> Unavailable:
    """What every door says while PostgreSQL does not answer."""
    return Unavailable(
        "The database does not answer at the moment. Work in progress goes on; try again in a few seconds.",
        code="database_unreachable",
    )


def _framework_error(exc: exceptions.APIException) -> HttpResponse:
    """Django REST framework's own errors, with stable codes and whole sentences."""
    if isinstance(exc, exceptions.ValidationError):
        field, detail = first_fault(exc.detail)
        return problem(400, title="The request is not valid", detail=detail, code="invalid", field=field)
    title, code, detail = {
        exceptions.ParseError: ("The body cannot be read", "malformed_body", str(exc.detail)),
        exceptions.NotAuthenticated: (
            "Who are you?",
            "token_missing",
            "This needs a token; send it as `Authorization: Bearer vdc_…`.",
        ),
        exceptions.AuthenticationFailed: ("Who are you?", "token_refused", str(exc.detail)),
        exceptions.PermissionDenied: ("Not allowed", "forbidden", str(exc.detail)),
        exceptions.NotFound: ("Not found", "not_found", str(exc.detail)),
        exceptions.MethodNotAllowed: ("Not done this way", "method_not_allowed", str(exc.detail)),
        exceptions.UnsupportedMediaType: (
            "The body cannot be read",
            "unsupported_media_type",
            f"{exc.detail} Send JSON, with `Content-Type: application/json`.",
        ),
        exceptions.Throttled: ("Too many requests", "throttled", str(exc.detail)),
    }.get(type(exc), ("The request was refused", "refused", str(exc.detail)))
    response = problem(exc.status_code, title=title, detail=detail, code=code)
    if exc.status_code == HTTPStatus.UNAUTHORIZED:
        response["WWW-Authenticate"] = "Bearer"
    if getattr(exc, "wait", None):
        response["Retry-After"] = str(int(exc.wait) + 1)
    return response


def first_fault(detail: Any, path: tuple[str, ...] = ()) -> tuple[str, str]:
    """The first leaf of a validation error as (field, sentence); the field of a nested one is `outer.inner`."""
    if isinstance(detail, dict):
        name, inner = next(iter(detail.items()))
        return first_fault(inner, path if name == "non_field_errors" else (*path, str(name)))
    if isinstance(detail, list):
        position, inner = next((i, item) for i, item in enumerate(detail) if item)
        return first_fault(inner, (*path, str(position)) if isinstance(inner, dict) else path)
    field = ".".join(path)
    return field, f"{field}: {detail}" if field else str(detail)


def _unexpected(request: HttpRequest, exc: BaseException) -> HttpResponse:
    """A bug of ours: the log gets the traceback, the caller an id to ask about."""
    error_id = f"err-{secrets.token_hex(4)}"
    log.error("unexpected_error", error_id=error_id, method=request.method, path=request.path, exc_info=exc)
    detail = f"Something went wrong here, not in your request; the log of the web process has it as {error_id}."
    if is_api(request):
        return problem(500, title="An error of ours", detail=detail, code="internal_error", error_id=error_id)
    return page(500, "An error of ours", detail)


def is_api(request: HttpRequest) -> bool:
    return request.path_info.startswith(API_PREFIX)


def page(status: int, title: str, detail: str) -> HttpResponse:
    """A page that needs nothing: no template, no session, no database."""
    return HttpResponse(
        format_html(
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>{}</title>'
            "<body><h1>{}</h1><p>{}</p></body></html>",
            title,
            title,
            detail,
        ),
        status=status,
    )


def refuse(request: HttpRequest, refusal: Refusal) -> HttpResponse:
    """A refusal outside of API views: a problem document below /api/, a plain page elsewhere."""
    if is_api(request):
        return refused(refusal)
    response = page(refusal.status, refusal.title, refusal.detail)
    if isinstance(refusal, Unavailable):
        response["Retry-After"] = str(refusal.retry_after_s)
    return response


def _plain(request: HttpRequest, status: int, title: str, detail: str, code: str) -> HttpResponse:
    return problem(status, title=title, detail=detail, code=code) if is_api(request) else page(status, title, detail)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler400: a host name that is not ours, a header that makes no sense."""
    if isinstance(exception, DisallowedHost):
        host = request.META.get("HTTP_HOST", "")
        detail = f"Nobody answers to the host name {host!r} here; use 127.0.0.1 or localhost."
        return _plain(request, 400, "The request is not valid", detail, "unknown_host")
    return _plain(request, 400, "The request is not valid", "The request makes no sense to the server.", "bad_request")


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler403"""
    detail = (
        str(exception) if isinstance(exception, DjangoPermissionDenied) and str(exception) else "This is not allowed."
    )
    return _plain(request, 403, "Not allowed", detail, "forbidden")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """handler404: a path that leads nowhere."""
    return _plain(request, 404, "Not found", f"There is nothing at {request.path_info}.", "not_found")


def server_error(request: HttpRequest) -> HttpResponse:
    """handler500: Django calls it while the exception is being handled, also for those raised in middleware."""
    exc = sys.exc_info()[1]
    refusal = as_refusal(exc) if exc is not None else None
    return refuse(request, refusal) if refusal is not None else _unexpected(request, exc)
