"""A real HTTP server for one object, which can cut, stall and lie; for tests."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

Reply = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers GET with whatever the test put under the path."""

    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        self.close_connection = True
        reply = self.server.replies.get(self.path)
        if reply is None:
            self.send_error(404)
        else:
            reply(self)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: dict[str, Reply] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients hang up here on purpose
            super().handle_error(request, client_address)


class ObjectServer:
    """Serves on a free port of 127.0.0.1 while the `with` lasts; `release` lets stalled answers go."""

    def __init__(self) -> None:
        self._server = _Server()
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.release = threading.Event()
        self.stalled = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def seen(self) -> list[tuple[str, dict[str, str]]]:
        """(path, headers) of each request so far."""
        return self._server.seen

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def on(self, path: str, reply: Reply) -> str:
        """Answer this path like that; returns its URL."""
        self._server.replies[path] = reply
        return self.url(path)

    def serve(self, path: str, body: bytes, *, length: int | None = -1, first: int | None = None) -> str:
        """Serve a body; `length` announces another length (None: none), `first` cuts the line after that many bytes."""

        def reply(handler: Handler) -> None:
            handler.send_response(200)
            if length is not None:
                handler.send_header("Content-Length", str(len(body) if length == -1 else length))
            handler.send_header("Connection", "close")
            handler.end_headers()
            handler.wfile.write(body if first is None else body[:first])

        return self.on(path, reply)

    def stall(self, path: str, body: bytes, first: int) -> str:
        """Send the first bytes, say so by `stalled`, and wait for `release` before the rest."""

        def reply(handler: Handler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body[:first])
            handler.wfile.flush()
            self.stalled.set()
            self.release.wait(60)
            handler.wfile.write(body[first:])

        return self.on(path, reply)

    def status(self, path: str, status: int, **headers: str) -> str:
        def reply(handler: Handler) -> None:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        return self.on(path, reply)
