"""Take the content of a backup object: one stream through the web door into the storage, inspected on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any

from rest_framework.parsers import BaseParser
from rest_framework.request import Request

from core.errors import Invalid, Permanent
from hypervisor import files_client
from hypervisor.upload_inspector import UploadInspector
from volumes import services
from volumes.models import BackupObject

CHUNK_BYTES = 1 << 20


class RawBody(BaseParser):
    """Leaves the body in its stream."""

    media_type = "*/*"

    def parse(self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping | None = None) -> Any:
        return stream


def receive(stored: BackupObject, request: Request) -> None:
    """Stream the body into the storage and make the object available; on any fault it is pending again, and empty.

    Raises Invalid when the bytes are not what they claim, Conflict when the object takes none, Unavailable when the
    storage cannot keep them.
    """
    expected_bytes, expected_sha256 = stored.size_bytes, stored.sha256
    services.begin_upload(stored)
    node = stored.storage.node
    inspector = UploadInspector(stored.format, name=stored.uid)
    try:
        files_client.put_object(node, stored.uid, _inspected(request.stream or request._request, inspector))
        found = inspector.finish()
        if expected_bytes is not None and found.stored_size_bytes != expected_bytes:
            raise Permanent(f"{stored.uid} was announced with {expected_bytes} bytes; {found.stored_size_bytes} came")
        if expected_sha256 and found.sha256 != expected_sha256:
            raise Permanent(f"The content has the SHA-256 {found.sha256}; announced was {expected_sha256}")
    except Permanent as fault:
        _forget(stored)
        raise Invalid(f"{fault.message}. Nothing was kept.", code="bad_content", field="content") from fault
    except BaseException:
        _forget(stored)
        raise
    services.finish_upload(
        stored, size_bytes=found.stored_size_bytes, raw_size_bytes=found.raw_size_bytes, sha256=found.sha256
    )


def _inspected(body: Any, inspector: UploadInspector) -> Iterator[bytes]:
    while chunk := body.read(CHUNK_BYTES):
        inspector.feed(chunk)
        yield chunk


def _forget(stored: BackupObject) -> None:
    files_client.delete_object(stored.storage.node, stored.uid)
    services.abandon_upload(stored)
