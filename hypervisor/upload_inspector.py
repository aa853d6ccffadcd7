"""Looks at an upload while it passes through the web door: digest, sizes, and whether it is whole; writes nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from hypervisor.image_store import RAW_LIMIT_BYTES
from hypervisor.unpacker import Unpacker


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a whole upload turned out to be; `sha256` is that of the stored bytes."""

    sha256: str
    stored_size_bytes: int
    raw_size_bytes: int


class UploadInspector:
    """Fed with all chunks of an upload in order; `feed` and `finish` raise Permanent when it is not what it claims."""

    def __init__(self, format: str, *, name: str = "The upload", raw_limit_bytes: int = RAW_LIMIT_BYTES) -> None:
        self._digest = hashlib.sha256()
        self._unpacker = Unpacker(format, name, raw_limit_bytes=raw_limit_bytes)

    def feed(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        for _ in self._unpacker.feed(chunk):
            pass  # only the sizes and checks inside matter

    def finish(self) -> Inspection:
        self._unpacker.finish()
        return Inspection(
            sha256=self._digest.hexdigest(),
            stored_size_bytes=self._unpacker.stored_size_bytes,
            raw_size_bytes=self._unpacker.raw_size_bytes,
        )
