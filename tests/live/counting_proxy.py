"""A real HTTP server in front of a node's files server: counts the bytes of each copy, and can stop in its middle."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import httpx

CHUNK_BYTES = 64 * 1024
LONGEST_HOLD_S = 180


class CountingProxy:
    """Serves on a free port of 127.0.0.1 while the `with` lasts.

    `sent`: for each GET so far, how many bytes of its body have gone out.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.sent: list[int] = []
        self._stops: list[tuple[int, Callable[[], object]]] = []
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._holds: list[Hold] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hold in self._holds:
            hold.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def at(self, position_bytes: int, do: Callable[[], object]) -> None:
        """When the next GET has sent so many bytes of its body, call `do` before it goes on."""
        self._stops.append((position_bytes, do))

    def hold_at(self, position_bytes: int) -> Hold:
        """The next GET stands still after so many bytes, until it is released."""
        hold = Hold()
        self._holds.append(hold)
        self.at(position_bytes, hold.wait)
        return hold

    def begin(self) -> tuple[int, tuple[int, Callable[[], object]] | None]:
        with self._lock:
            self.sent.append(0)
            return len(self.sent) - 1, self._stops.pop(0) if self._stops else None


class Hold:
    """A copy that stands still in its middle."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._go = threading.Event()

    def wait(self) -> None:
        self.reached.set()
        self._go.wait(LONGEST_HOLD_S)

    def release(self) -> None:
        self._go.set()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, proxy: CountingProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed in the middle is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        proxy = self.server.proxy
        number, stop = proxy.begin()
        headers = {"Authorization": self.headers["Authorization"], "Accept-Encoding": "identity"}
        self.close_connection = True
        with (
            httpx.Client(trust_env=False, timeout=30) as client,
            client.stream("GET", proxy.upstream + self.path, headers=headers) as answer,
        ):
            self.send_response(answer.status_code)
            self.send_header("Content-Length", answer.headers["Content-Length"])
            self.send_header("Connection", "close")
            self.end_headers()
            for chunk in answer.iter_raw(CHUNK_BYTES):
                self._send(chunk, number, stop)

    def _send(self, chunk: bytes, number: int, stop: tuple[int, Callable[[], object]] | None) -> None:
        sent = self.server.proxy.sent
        left_bytes = stop[0] - sent[number] if stop else -1
        if stop and 0 <= left_bytes < len(chunk):
            self._write(chunk[:left_bytes], number)
            stop[1]()
            chunk = chunk[left_bytes:]
        self._write(chunk, number)

    def _write(self, piece: bytes, number: int) -> None:
        self.wfile.write(piece)
        self.wfile.flush()
        self.server.proxy.sent[number] += len(piece)

    def log_message(self, format: str, *args: object) -> None:
        pass
