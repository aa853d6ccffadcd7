"""Stands before the node's files server and serves images to import: counts whole downloads, cuts and stalls them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import httpx

CHUNK_BYTES = 64 * 1024
IMPORTS = "/imports/"
ANSWER_S = 30.0


@dataclass
class Download:
    """One GET: of what, when it began (Unix time), how much went out, and whether that was all."""

    path: str
    began_at: float
    sent_bytes: int = 0
    is_whole: bool = False


@dataclass
class Proxy:
    """Serves on a free port of 127.0.0.1 while the `with` lasts. `imports`: content by name, found below /imports/."""

    upstream: str
    imports: dict[str, bytes]
    downloads: list[Download] = field(default_factory=list)
    cut_after_bytes: int | None = None  # while set, no download gets further
    flowing: threading.Event = field(default_factory=threading.Event)  # while cleared, downloads stand still

    def __post_init__(self) -> None:
        self.flowing.set()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flowing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def import_url(self, name: str) -> str:
        return f"{self.url}{IMPORTS}{name}"


class _Cut(Exception):
    """This download ends here."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed in the middle is what a campaign is about."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        proxy = self.server.proxy
        self.close_connection = True
        download = Download(self.path, time.time())
        proxy.downloads.append(download)
        try:
            if self.path.startswith(IMPORTS):
                content = proxy.imports[self.path.removeprefix(IMPORTS)]
                self._begin(200, {"Content-Length": str(len(content))})
                for offset in range(0, len(content), CHUNK_BYTES):
                    self._send(content[offset : offset + CHUNK_BYTES], download)
                download.is_whole = True
            else:
                self._pass_on(download)
        except (_Cut, httpx.HTTPError):
            self.connection.close()

    def _pass_on(self, download: Download) -> None:
        wanted = ("Authorization", "Range", "If-Range")
        headers = {name: self.headers[name] for name in wanted if name in self.headers}
        with (
            httpx.Client(trust_env=False, timeout=ANSWER_S) as client,
            client.stream(
                "GET", self.server.proxy.upstream + self.path, headers={**headers, "Accept-Encoding": "identity"}
            ) as answer,
        ):
            kept = ("Content-Length", "Content-Range", "Content-Type", "ETag", "Last-Modified")
            self._begin(answer.status_code, {name: answer.headers[name] for name in kept if name in answer.headers})
            for chunk in answer.iter_raw(CHUNK_BYTES):
                self._send(chunk, download)
            download.is_whole = answer.status_code == 200

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def _send(self, chunk: bytes, download: Download) -> None:
        proxy = self.server.proxy
        proxy.flowing.wait(ANSWER_S)
        limit = proxy.cut_after_bytes
        if limit is not None and download.sent_bytes + len(chunk) > limit:
            raise _Cut
        self.wfile.write(chunk)
        download.sent_bytes += len(chunk)

    def log_message(self, format: str, *args: object) -> None:
        """The campaign says itself what happens."""
