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
    answer = _ask(node, "GET", f"consoles/{uid}", params={"last_bytes": last_bytes})
    if answer.status_code == 404:
        raise NotFound(f"{uid} has no console log: it has not been started on {node} yet.", code="no_console_log")
    return _good(answer, node).content.decode(errors="replace")


def put_object(node: Node, key: str, chunks: Iterator[bytes]) -> None:
    """Stream an object into the node's backup storage. Unavailable when it cannot be stored."""
    answer = _ask(node, "PUT", f"storage/{key}", content=chunks, timeout=httpx.Timeout(60, connect=3))
    if answer.status_code == 507:
        raise Unavailable(answer.text.strip() or f"The backup storage on {node} is full.", code="storage_full")
    _good(answer, node)


def delete_object(node: Node, key: str) -> None:
    """Take an object out of the node's backup storage; it may be gone already."""
    _ask(node, "DELETE", f"storage/{key}")


def read_trash(node: Node) -> list[dict[str, Any]]:
    """The entries of the node's trash as its files server tells them (`hypervisor.trash.TrashEntry`), oldest first."""
    return _good(_ask(node, "GET", "trash"), node).json()["items"]


def delete_trash(node: Node, name: str, *, why: str) -> None:
    """Delete an entry of the node's trash now; NotFound if there is none of that name."""
    answer = _ask(node, "DELETE", f"trash/{name}", params={"why": why})
    if answer.status_code == 404:
        raise NotFound(f"The trash of {node} has no entry {name}.", code="not_found")
    _good(answer, node)


def _ask(node: Node, method: str, path: str, *, timeout: httpx.Timeout = TIMEOUT, **rest: Any) -> httpx.Response:
    """Conflict for a node that has no files server, as fake ones have; Unavailable when it does not answer."""
    if not node.files_url:
        raise Conflict(
            f"{node} has no files server: it keeps neither console logs nor trash that could be read.",
            code="no_files_server",
        )
    try:
        return httpx.request(
            method,
            f"{node.files_url}/{path}",
            headers={"Authorization": f"Bearer {node.files_token}"},
            timeout=timeout,
            trust_env=False,
            **rest,
        )
    except httpx.HTTPError as exc:
        kind = NotReached if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout) else Unavailable
        raise kind(
            f"The files server of {node} does not answer ({type(exc).__name__}); try again, or look at the node.",
            code="files_server",
        ) from exc


def _good(answer: httpx.Response, node: Node) -> httpx.Response:
    if not answer.is_success:
        raise Unavailable(f"The files server of {node} answered {answer.status_code}.", code="files_server")
    return answer
