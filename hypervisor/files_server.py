"""The HTTP door to the files of a node: its backup storage, and the tails of its guests' consoles (WSGI, for gunicorn).

    GET|HEAD|PUT|DELETE /storage/<key>             one object of the `local` backup storage
    GET|HEAD            /consoles/<uid>?last_bytes=N   what a guest printed last
    GET                 /trash                         {"items": […]}: discarded volumes, oldest first
    DELETE              /trash/<entry>?why=…           delete one now; `why` ends the sentence that tells of it

Every request carries the bearer token of the stack file. PUT answers {"key", "sha256", "size_bytes"}.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import io
import json
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs

from hypervisor.contract import Permanent
from hypervisor.free_space import OUT_OF_ROOM, RESERVE_BYTES, free_bytes, mount_point
from hypervisor.receipts import SAFE_NAME, receipt_path, sync_directory
from hypervisor.trash import Trash

CHUNK_BYTES = 1024**2
CONSOLE_BYTES = 64 * 1024
MAX_CONSOLE_BYTES = 4 * 1024**2
ABANDONED_AFTER_S = 60.0
PLACE = re.compile(r"/(?P<room>storage|consoles|trash)/(?P<name>[^/]+)")
CONSOLE_METHODS = ("GET", "HEAD")
MOST_WHY_CHARACTERS = 500
ONE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")

Environ = dict[str, Any]
StartResponse = Callable[..., object]


class Answer(Exception):
    """An answer other than the asked-for bytes, as a problem document."""

    def __init__(self, status: HTTPStatus, detail: str, *, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers


class FilesServer:
    """The WSGI application of one stack, whose state is below `state_dir` (/var/lib/<name>)."""

    def __init__(self, state_dir: Path | str) -> None:
        self._state_dir = Path(state_dir)
        self._storage = self._state_dir / "storage"
        self._consoles = self._state_dir / "node" / "consoles"
        self._storage_methods = {"GET": self._get, "HEAD": self._get, "PUT": self._put, "DELETE": self._delete}

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            self._check_token(environ)
            return self._route(environ, start_response)
        except Answer as answer:
            problem = {
                "type": "about:blank",
                "title": answer.status.phrase,
                "status": answer.status,
                "detail": answer.detail,
            }
            body = json.dumps(problem).encode()
            headers = [("Content-Type", "application/problem+json"), ("Content-Length", str(len(body)))]
            start_response(_line(answer.status), [*headers, *answer.headers])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _route(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if environ.get("PATH_INFO") == "/trash":
            return self._only("GET", method, self._list_trash, start_response)
        place = PLACE.fullmatch(environ.get("PATH_INFO", ""))
        if place is None or not SAFE_NAME.fullmatch(place["name"]):
            raise Answer(
                HTTPStatus.NOT_FOUND,
                "Paths are /storage/<key>, /consoles/<uid>, /trash and /trash/<entry>; "
                "names have letters, digits, dots, underscores and hyphens, and start with a letter or digit",
            )
        if place["room"] == "storage" and method in self._storage_methods:
            return self._storage_methods[method](place["name"], environ, start_response)
        if place["room"] == "consoles" and method in CONSOLE_METHODS:
            return self._tail(place["name"], environ, start_response)
        if place["room"] == "trash":
            return self._only("DELETE", method, self._delete_trash, place["name"], environ, start_response)
        allowed = self._storage_methods if place["room"] == "storage" else CONSOLE_METHODS
        raise Answer(
            HTTPStatus.METHOD_NOT_ALLOWED, f"{method} is not possible here", headers=(("Allow", ", ".join(allowed)),)
        )

    def _only(self, allowed: str, method: str, answer: Callable[..., Iterable[bytes]], *words: Any) -> Iterable[bytes]:
        if method == allowed:
            return answer(*words)
        raise Answer(HTTPStatus.METHOD_NOT_ALLOWED, f"{method} is not possible here", headers=(("Allow", allowed),))

    def _check_token(self, environ: Environ) -> None:
        try:
            # Read each time: the stack may be given a new token while we run.
            token = str(json.loads((self._state_dir / "stack.json").read_bytes())["files_token"])
        except (OSError, ValueError, KeyError) as fault:
            raise Answer(
                HTTPStatus.SERVICE_UNAVAILABLE, f"The stack file of {self._state_dir.name} cannot be read"
            ) from fault
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if not token or scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), token.encode()):
            raise Answer(
                HTTPStatus.UNAUTHORIZED,
                "The bearer token of the files server is missing or wrong",
                headers=(("WWW-Authenticate", "Bearer"),),
            )

    def _get(self, key: str, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            file = os.fdopen(os.open(self._storage / key, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb")
        except OSError as fault:
            raise Answer(HTTPStatus.NOT_FOUND, f"The storage has no object {key!r}") from fault
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            file.close()
            raise Answer(HTTPStatus.NOT_FOUND, f"The storage has no object {key!r}")
        etag = f'"{status.st_size:x}-{status.st_mtime_ns:x}"'
        headers = [
            ("ETag", etag),
            ("Last-Modified", formatdate(status.st_mtime, usegmt=True)),
            ("Accept-Ranges", "bytes"),
            ("Content-Type", "application/octet-stream"),
        ]
        if environ.get("HTTP_IF_NONE_MATCH") == etag:
            file.close()
            start_response(_line(HTTPStatus.NOT_MODIFIED), headers)
            return []
        try:
            wanted = _range(environ, status.st_size, etag, dict(headers)["Last-Modified"])
        except Answer:
            file.close()
            raise
        start, end = wanted or (0, status.st_size)
        headers.append(("Content-Length", str(end - start)))
        if wanted:
            headers.append(("Content-Range", f"bytes {start}-{end - 1}/{status.st_size}"))
        start_response(_line(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK), headers)
        if environ["REQUEST_METHOD"] == "HEAD":
            file.close()
            return []
        file.seek(start)
        if end == status.st_size and (wrapper := environ.get("wsgi.file_wrapper")):
            return wrapper(file, CHUNK_BYTES)  # gunicorn sends it by sendfile(2)
        return _slice(file, end - start)

    def _put(self, key: str, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self._storage.mkdir(parents=True, exist_ok=True, mode=0o711)
        self._remove_abandoned_uploads()
        length = environ.get("CONTENT_LENGTH") or ""
        announced = int(length) if length.isascii() and length.isdigit() else None
        if announced is None and not environ.get("wsgi.input_terminated"):
            raise Answer(HTTPStatus.LENGTH_REQUIRED, "Send Content-Length, or a chunked body")
        if announced is not None and announced + RESERVE_BYTES > free_bytes(self._storage):
            raise self._disk_full(key)
        temporary = self._storage / f".{key}.{uuid.uuid4().hex}.part"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # says that somebody is still at it
                sha256, size_bytes = _receive(environ["wsgi.input"], announced, file)
                os.fsync(descriptor)
                is_new = not (self._storage / key).exists()
                receipt_path(self._storage / key).unlink(missing_ok=True)  # it spoke of what was here before
                temporary.rename(self._storage / key)
            sync_directory(self._storage)
        except OSError as fault:
            if fault.errno in OUT_OF_ROOM:
                raise self._disk_full(key) from fault
            raise
        finally:
            temporary.unlink(missing_ok=True)
        body = json.dumps({"key": key, "sha256": sha256, "size_bytes": size_bytes}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(_line(HTTPStatus.CREATED if is_new else HTTPStatus.OK), headers)
        return [body]

    def _delete(self, key: str, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = self._storage / key
        if path.is_symlink() or not path.is_file():
            raise Answer(HTTPStatus.NOT_FOUND, f"The storage has no object {key!r}")
        receipt_path(path).unlink(missing_ok=True)  # an import by URL writes one
        path.unlink(missing_ok=True)
        sync_directory(self._storage)
        start_response(_line(HTTPStatus.NO_CONTENT), [])
        return []

    def _tail(self, uid: str, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        asked = parse_qs(environ.get("QUERY_STRING", "")).get("last_bytes", [str(CONSOLE_BYTES)])[-1]
        if not re.fullmatch(r"[0-9]{1,18}", asked):
            raise Answer(HTTPStatus.BAD_REQUEST, "last_bytes is a number of bytes")
        count = min(int(asked), MAX_CONSOLE_BYTES)
        current = self._consoles / f"{uid}.log"
        # A log that has just been rotated is short: what came before is in its predecessor.
        logs = [
            path for path in (current, current.with_suffix(".log.0"), current.with_suffix(".log.1")) if path.exists()
        ]
        if not logs:
            raise Answer(HTTPStatus.NOT_FOUND, f"There is no console log of {uid!r} on this node")
        body = b""
        for path in logs:
            body = _last_bytes(path, count - len(body)) + body
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        start_response(_line(HTTPStatus.OK), headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _trash(self) -> Trash:
        return Trash(self._state_dir / "node" / "trash", self._state_dir / "node" / "volumes")

    def _list_trash(self, start_response: StartResponse) -> Iterable[bytes]:
        body = json.dumps({"items": [asdict(entry) for entry in self._trash().entries()]}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(_line(HTTPStatus.OK), headers)
        return [body]

    def _delete_trash(self, name: str, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        why = parse_qs(environ.get("QUERY_STRING", "")).get("why", ["somebody asked for it"])[-1]
        try:
            gone = self._trash().delete(name, why[:MOST_WHY_CHARACTERS])
        except Permanent as fault:
            raise Answer(HTTPStatus.INTERNAL_SERVER_ERROR, fault.message) from fault
        if gone is None:
            raise Answer(HTTPStatus.NOT_FOUND, f"The trash has no entry {name!r}")
        start_response(_line(HTTPStatus.NO_CONTENT), [])
        return []

    def _disk_full(self, key: str) -> Answer:
        return Answer(
            HTTPStatus.INSUFFICIENT_STORAGE,
            f"The file system {mount_point(self._storage)} has no room for {key!r}: "
            f"{free_bytes(self._storage):,} bytes are free. Delete backup objects or add room; nothing was kept.",
        )

    def _remove_abandoned_uploads(self) -> None:
        """Uploads whose server was killed: nobody holds their lock, and they are no longer young."""
        for part in self._storage.glob(".*.part"):
            with suppress(FileNotFoundError, BlockingIOError), part.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - part.stat().st_mtime > ABANDONED_AFTER_S:
                    part.unlink()


def _line(status: HTTPStatus) -> str:
    return f"{status.value} {status.phrase}"


def _receive(body: BinaryIO, announced: int | None, file: io.RawIOBase) -> tuple[str, int]:
    """Write a request's body to the file; digest and size. A body that ends early is an error."""
    digest = hashlib.sha256()
    size_bytes = 0
    while announced is None or size_bytes < announced:
        wanted = CHUNK_BYTES if announced is None else min(CHUNK_BYTES, announced - size_bytes)
        chunk = body.read(wanted)
        if not chunk:
            break
        digest.update(chunk)
        size_bytes += len(chunk)
        view = memoryview(chunk)
        while view:
            view = view[file.write(view) :]
    if announced is not None and size_bytes < announced:
        raise Answer(HTTPStatus.BAD_REQUEST, f"The body ended after {size_bytes:,} of {announced:,} bytes")
    return digest.hexdigest(), size_bytes


def _range(environ: Environ, size_bytes: int, etag: str, last_modified: str) -> tuple[int, int] | None:
    """(start, end) of the one range asked for; None for the whole file. More than one range gets the whole file."""
    match = ONE_RANGE.fullmatch(environ.get("HTTP_RANGE", "").replace(" ", ""))
    if not match or match.groups() == ("", ""):
        return None
    if environ.get("HTTP_IF_RANGE", etag) not in (etag, last_modified):
        return None
    first, last = match.groups()
    if first:
        start = int(first)
        end = min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < start:
            return None  # not a range at all, says RFC 9110
    else:
        start, end = max(0, size_bytes - int(last)), size_bytes
    if start >= end:
        raise Answer(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            f"The object has {size_bytes:,} bytes",
            headers=(("Content-Range", f"bytes */{size_bytes}"),),
        )
    return start, end


def _slice(file: BinaryIO, count: int) -> Iterator[bytes]:
    with file:
        while count > 0 and (chunk := file.read(min(CHUNK_BYTES, count))):
            count -= len(chunk)
            yield chunk


def _last_bytes(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            size_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(0, size_bytes - count))
            return file.read(count)
    except FileNotFoundError:  # rotated away between our two looks
        return b""


app = FilesServer(Path("/var/lib") / os.environ.get("VDC_NAME", "vdc"))
