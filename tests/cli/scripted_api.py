"""A real HTTP server that plays the API from a script and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

TOKEN = "token-of-the-test"
BASE = "/api/v1/"


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    body_bytes: int


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


DROP = Answer(status=0)
"""The line is cut instead of an answer."""

Script = Answer | Callable[[Request], Answer]


def problem(status: int, detail: str, code: str = "refused", *, headers: dict[str, str] | None = None, **extra: Any):
    body = {"type": "about:blank", "title": "No", "status": status, "detail": detail, "code": code, **extra}
    return Answer(status, body, headers or {}, "application/problem+json")


class ScriptedApi:
    """`on("GET", "images", a, b)` answers the first such request with a, all later ones with b."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._scripts: dict[tuple[str, str], list[Script]] = defaultdict(list)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> ScriptedApi:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def on(self, method: str, path: str, *answers: Script | dict | list) -> None:
        ready = [Answer(body=answer) if isinstance(answer, dict) else answer for answer in answers]
        self._scripts[method, path] = ready

    def asked(self, method: str, path: str) -> list[Request]:
        return [request for request in self.requests if (request.method, request.path) == (method, path)]

    def _next(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            script = self._scripts[request.method, request.path]
            if not script:
                return problem(404, f"{request.method} {request.path} is not in the script.", "not_found")
            answer = script.pop(0) if len(script) > 1 else script[0]
        return answer(request) if callable(answer) else answer

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                url = urlsplit(self.path)
                body, count = self._read_body()
                if not url.path.startswith(BASE):
                    answer = problem(404, f"{url.path} is outside of the API.")
                elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    answer = problem(401, "The token is unknown or has expired.", "unknown_token")
                else:
                    query = dict(parse_qsl(url.query))
                    path = url.path.removeprefix(BASE)
                    answer = api._next(Request(self.command, path, query, dict(self.headers), body, count))
                self._answer(answer)

            def _read_body(self) -> tuple[Any, int]:
                """JSON is parsed; other bodies are only counted, so that large ones stay out of memory."""
                left = int(self.headers.get("Content-Length", 0))
                if self.headers.get("Content-Type") == "application/json":
                    return json.loads(self.rfile.read(left)), left
                count = 0
                while count < left:
                    piece = self.rfile.read(min(left - count, 1 << 20))
                    if not piece:
                        break
                    count += len(piece)
                return None, count

            def _answer(self, answer: Answer) -> None:
                if answer is DROP:
                    self.close_connection = True
                    return
                raw = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                if answer.status == 204:
                    raw = b""
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.content_type)
                self.send_header("Content-Length", str(len(raw)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = do_PUT = do_DELETE = _serve

            def log_message(self, *args: object) -> None:
                return

        return Handler
