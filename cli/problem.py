"""Turns answers that say no into lines that people can act upon."""

from __future__ import annotations

import json
from typing import Any

from cli.errors import Away, CliError, Refused
from cli.login import Login

# Answers of a server, or of a proxy before it, that may be different in a moment.
AWAY_STATUSES = {502, 503, 504}


def problem_of(status: int, body: bytes, retry_after: str | None, login: Login) -> CliError:
    """The error for an HTTP answer of 300 and above."""
    document = _document(body)
    if status in AWAY_STATUSES:
        return _away(status, document, retry_after, login)
    if status == 401:
        return _unknown_token(document, login)
    if document is None:
        return Refused(
            f"{login.url} answered with HTTP status {status} and no explanation: is this the URL of a data center?",
            status=status,
        )
    return Refused("\n".join(_sentences(status, document)), status=status)


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _sentences(status: int, document: dict[str, Any]) -> list[str]:
    detail = str(document.get("detail") or document.get("title") or f"The API refused this with HTTP status {status}.")
    field, state, operation = (document.get(key) for key in ("field", "state", "operation"))
    if field and str(field) not in detail:
        detail += f" (field {field})"
    lines = [detail]
    if operation:
        lines.append(f"Busy with {operation} (vdc operation watch {operation}).")
    verbs = document.get("allowed_verbs")
    listed = ", ".join(map(str, verbs or ()))
    if verbs is not None and not (listed and listed in detail):
        now = f"Its state is {state}; allowed now" if state and str(state) not in detail else "Allowed now"
        lines.append(f"{now}: {listed or 'nothing'}.")
    if status >= 500 and document.get("request_id"):
        lines.append(f"Whoever looks into the logs will ask for this request: {document['request_id']}.")
    return lines


def _unknown_token(document: dict[str, Any] | None, login: Login) -> Refused:
    detail = (document or {}).get("detail") or "unknown, revoked or expired."
    return Refused(
        f"{login.url} does not accept the token from {login.origin}: {detail}\n"
        "`make demo` writes a fresh one on the machine of the data center; elsewhere set VDC_URL and VDC_TOKEN.",
        status=401,
    )


def _away(status: int, document: dict[str, Any] | None, retry_after: str | None, login: Login) -> Away:
    detail = str((document or {}).get("detail") or f"{login.url} answered with HTTP status {status}.")
    # An HTTP date is allowed too, but our API only ever sends seconds.
    retry_after_s = float(retry_after) if retry_after and retry_after.isdecimal() else None
    when = f"in {retry_after_s:.0f} s" if retry_after_s else "in a moment"
    return Away(
        f"The data center cannot answer now: {detail}\n"
        f"Try again {when}. If it lasts: `make status` on its machine says what runs.",
        reason=detail.rstrip("."),
        retry_after_s=retry_after_s,
    )
