"""Take the content of a backup object: one stream through the web door into the storage, inspected on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import IO, Any

import structlog
from django.db import connection
from rest_framework.parsers import BaseParser
from rest_framework.request import Request

from core.database import DATABASE_ERRORS, begin_request, unreachable
from core.errors import Invalid, Permanent
from hypervisor import files_client
from hypervisor.upload_inspector import UploadInspector
from volumes import uploads
from volumes.models import BackupObject

CHUNK_BYTES = 1 << 18
SILENCE_S = 60.0  # a client that sends nothing for so long has gone; until then it holds a thread of the web door

log = structlog.get_logger()


class RawBody(BaseParser):
    """Leaves the body in its stream."""

    media_type = "*/*"

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping | None = None) -> Any:
        return stream


def receive(stored: BackupObject, request: Request) -> None:
    """Stream the body into the storage and make the object available; on any fault it is pending again, and empty.

    Raises Invalid when the bytes are not what they claim or end too early, Conflict when the object takes none,
    Unavailable when the storage cannot keep them.
    """
    expected_bytes, expected_sha256 = stored.size_bytes, stored.sha256
    upload = uploads.begin(stored)
    inspector = UploadInspector(stored.format, name=stored.uid)
    try:
        content = _inspected(_pieces(request), inspector, partial(uploads.keep, stored, upload))
        files_client.put_object(stored.storage.node, stored.uid, content)
        found = inspector.finish()
        if expected_bytes is not None and found.stored_size_bytes != expected_bytes:
            raise Permanent(f"{stored.uid} was announced with {expected_bytes} bytes; {found.stored_size_bytes} came")
        if expected_sha256 and found.sha256 != expected_sha256:
            raise Permanent(f"{stored.uid} was announced with the SHA-256 {expected_sha256}; {found.sha256} came")
    except Permanent as fault:
        uploads.abandon(stored, upload)
        raise Invalid(f"{fault.message}. Nothing was kept.", code="bad_content", field="content") from fault
    except files_client.NotReached:
        uploads.withdraw(stored, upload)
        raise
    except BaseException:
        uploads.abandon(stored, upload)
        raise
    uploads.finish(
        stored, upload, size_bytes=found.stored_size_bytes, raw_size_bytes=found.raw_size_bytes, sha256=found.sha256
    )


def _pieces(request: Request) -> Iterator[bytes]:
    """The whole body, or Permanent: to its reader the end of a broken connection looks as if all had come."""
    environ = request._request.META
    announced = int(environ.get("CONTENT_LENGTH") or 0)
    is_chunked = not announced and environ.get("wsgi.input_terminated", False)
    # Django shows an empty body where no length was announced; the server's own stream ends by itself.
    body = environ["wsgi.input"] if is_chunked else request._request
    if "gunicorn.socket" in environ:
        environ["gunicorn.socket"].settimeout(SILENCE_S)
    came = 0
    try:
        while piece := body.read(CHUNK_BYTES):
            came += len(piece)
            yield piece
    except OSError as fault:
        raise Permanent(f"The connection broke off after {came} bytes") from fault
    if came < announced:
        raise Permanent(f"The connection broke off after {came} of {announced} bytes")


def _inspected(pieces: Iterator[bytes], inspector: UploadInspector, keep: Callable[[], None]) -> Iterator[bytes]:
    kept_at = time.monotonic()
    for piece in pieces:
        inspector.feed(piece)
        yield piece
        if time.monotonic() - kept_at >= uploads.KEEP_EVERY_S:
            _keep_if_possible(keep)
            kept_at = time.monotonic()


def _keep_if_possible(keep: Callable[[], None]) -> None:
    """An outage of the database in the middle of an upload counts for nothing."""
    begin_request()  # the time that a request may wait for the database is not meant for hours of signs of life
    try:
        keep()
    except DATABASE_ERRORS as exc:
        if not unreachable(exc):
            raise
        log.warning("an upload could not be kept alive; it goes on", error=str(exc).strip())
        connection.close()
