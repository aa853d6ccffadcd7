"""The HTTP side: one call for each kind of request, and errors that are sentences."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from cli.errors import Away, Refused
from cli.login import API_PATH, Login
from cli.problem import problem_of

# Before the second, third … try of a GET. Together short enough for somebody who waits at a prompt.
PAUSES_S = (0.25, 0.5, 1.0, 2.0)
LONGEST_PAUSE_S = 5.0
PAGE = 200

# The server may still have to verify a whole upload after its last byte.
_TIMEOUT = httpx.Timeout(connect=5.0, read=30.0, write=60.0, pool=5.0)
_UPLOAD_TIMEOUT = httpx.Timeout(connect=5.0, read=900.0, write=120.0, pool=5.0)
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Client:
    """Speaks to one API with one token. `notice` gets a line whenever a GET is tried again."""

    def __init__(self, login: Login, *, notice: Callable[[str], None]) -> None:
        self.login = login
        self._notice = notice
        url = urlsplit(login.url)
        self._http = httpx.Client(
            base_url=login.url + API_PATH + "/",
            headers={"Authorization": f"Bearer {login.token}", "Accept": "application/json, */*;q=0.5"},
            timeout=_TIMEOUT,
            # Reading the certificates takes 40 ms; plain HTTP has no use for them.
            verify=url.scheme == "https",
            # A proxy of the environment cannot know our loopback.
            trust_env=url.hostname not in _LOOPBACK,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """The object at `path`. A broken line or a 503 is met with a few more tries."""
        return _json(self._patiently(lambda: self._send("GET", path, params=_given(query))))

    def get_once(self, path: str) -> dict[str, Any]:
        """As `get`, for callers that have a patience of their own."""
        return _json(self._send("GET", path))

    def get_bytes(self, path: str, **query: Any) -> bytes:
        return self._patiently(lambda: self._send("GET", path, params=_given(query))).content

    def items(self, path: str, *, limit: int, **query: Any) -> tuple[list[dict[str, Any]], bool]:
        """The newest `limit` items (0: all), and whether there are more."""
        found: list[dict[str, Any]] = []
        after = None
        while True:
            wanted = min(PAGE, limit - len(found)) if limit else PAGE
            page = self.get(path, limit=wanted, after=after, **query)
            found += page["items"]
            after = page.get("next")
            if not after or (limit and len(found) >= limit):
                return found, bool(after)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return _json(self._send("POST", path, json=body))

    def delete(self, path: str) -> None:
        self._send("DELETE", path)

    def put_stream(self, path: str, chunks: Iterable[bytes], *, size_bytes: int) -> dict[str, Any]:
        """Send exactly `size_bytes` from `chunks`, never more than one chunk in memory."""
        headers = {"Content-Length": str(size_bytes), "Content-Type": "application/octet-stream"}
        return _json(self._send("PUT", path, content=chunks, headers=headers, timeout=_UPLOAD_TIMEOUT))

    def _patiently(self, ask: Callable[[], httpx.Response]) -> httpx.Response:
        for number, pause_s in enumerate(PAUSES_S, start=2):
            try:
                return ask()
            except Away as error:
                self._notice(f"{error.reason}; trying again ({number} of {len(PAUSES_S) + 1})")
                time.sleep(min(max(pause_s, error.retry_after_s or 0), LONGEST_PAUSE_S))
        return ask()

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, quote(path), **request)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Away(
                f"No connection to {self.login.url} (from {self.login.origin}): {_short(error)}.\n"
                "Does the data center run (`make status` on its machine says), and is the URL right?",
                reason=f"no connection to {self.login.url}",
            ) from None
        except httpx.TransportError as error:
            unknown = (
                ""
                if method == "GET"
                else "\nWhether the request was taken is not known: look before you repeat it (vdc operation list)."
            )
            raise Away(
                f"{self.login.url} broke off before it had answered: {_short(error)}.{unknown}",
                reason=f"{self.login.url} broke off ({_short(error)})",
            ) from None
        if response.is_success:
            return response
        raise problem_of(response.status_code, response.content, response.headers.get("Retry-After"), self.login)


def _short(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "timed out"
    text = re.sub(r"^\[Errno -?\d+\] ", "", str(error)).strip().rstrip(".")
    return text[:1].lower() + text[1:]


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in query.items() if value is not None}


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refused(
            f"{response.url} answered with something that is not JSON: is this the URL of a data center?",
            status=response.status_code,
        )
    return body
