"""Ask a node's files server: console logs, the content of its backup storage, and its trash."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx

from core.errors import Conflict, NotFound, Unavailable
from hypervisor.models import Node

TIMEOUT = httpx.Timeout(10, connect=3)


class NotReached(Unavailable):
    """Nobody took the request, so nobody will carry it out later either."""


def read_console(node: Node, uid: str, *, last_bytes: int) -> str:
    """The last bytes of a guest's console log, not UTF-8 replaced; Unavailable when the node is silent."""
    try:
        answer = httpx.get(
            f"{_address(node)}/consoles/{uid}",
            params={"last_bytes": last_bytes},
            headers=_authorized(node),
            timeout=TIMEOUT,
            trust_env=False,
        )
    except httpx.HTTPError as exc:
        raise _silent(node, exc) from exc
    if answer.status_code == 404:
        raise NotFound(f"{uid} has no console log: it has not been started on {node} yet.", code="no_console_log")
    if answer.status_code != 200:
        raise Unavailable(f"The files server of {node} answered {answer.status_code}.", code="files_server")
    return answer.content.decode(errors="replace")


def put_object(node: Node, key: str, chunks: Iterator[bytes]) -> None:
    """Stream an object into the node's backup storage. Unavailable when it cannot be stored."""
    try:
        answer = httpx.put(
            f"{_address(node)}/storage/{key}",
            content=chunks,
            headers=_authorized(node),
            timeout=httpx.Timeout(60, connect=3),
            trust_env=False,
        )
    except httpx.HTTPError as exc:
        raise _silent(node, exc) from exc
    if answer.status_code == 507:
        raise Unavailable(answer.text.strip() or f"The backup storage on {node} is full.", code="storage_full")
    if not answer.is_success:
        raise Unavailable(f"The files server of {node} answered {answer.status_code}.", code="files_server")


def delete_object(node: Node, key: str) -> None:
    """Take an object out of the node's backup storage; it may be gone already."""
    try:
        httpx.delete(f"{_address(node)}/storage/{key}", headers=_authorized(node), timeout=TIMEOUT, trust_env=False)
    except httpx.HTTPError as exc:
        raise _silent(node, exc) from exc


def read_trash(node: Node) -> list[dict[str, Any]]:
    """The entries of the node's trash as its files server tells them (`hypervisor.trash.TrashEntry`), oldest first."""
    try:
        answer = httpx.get(f"{_address(node)}/trash", headers=_authorized(node), timeout=TIMEOUT, trust_env=False)
    except httpx.HTTPError as exc:
        raise _silent(node, exc) from exc
    if answer.status_code != 200:
        raise Unavailable(f"The files server of {node} answered {answer.status_code}.", code="files_server")
    return answer.json()["items"]


def delete_trash(node: Node, name: str, *, why: str) -> None:
    """Delete an entry of the node's trash now; NotFound if there is none of that name."""
    try:
        answer = httpx.delete(
            f"{_address(node)}/trash/{name}",
            params={"why": why},
            headers=_authorized(node),
            timeout=TIMEOUT,
            trust_env=False,
        )
    except httpx.HTTPError as exc:
        raise _silent(node, exc) from exc
    if answer.status_code == 404:
        raise NotFound(f"The trash of {node} has no entry {name}.", code="not_found")
    if not answer.is_success:
        raise Unavailable(f"The files server of {node} answered {answer.status_code}.", code="files_server")


def _address(node: Node) -> str:
    """Where its files server answers; Conflict for a node that has none, as fake ones have."""
    if not node.files_url:
        raise Conflict(
            f"{node} has no files server: it keeps neither console logs nor trash that could be read.",
            code="no_files_server",
        )
    return node.files_url


def _authorized(node: Node) -> dict[str, str]:
    return {"Authorization": f"Bearer {node.files_token}"}


def _silent(node: Node, exc: httpx.HTTPError) -> Unavailable:
    kind = NotReached if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout) else Unavailable
    return kind(
        f"The files server of {node} does not answer ({type(exc).__name__}); try again, or look at the node.",
        code="files_server",
    )
