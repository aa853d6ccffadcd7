"""Compress a raw disk and take its measures on the way."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 20
GZIP_FORMAT = 16 + zlib.MAX_WBITS  # zlib writes the gzip header itself: no name and time 0 in it


@dataclass(frozen=True)
class Packed:
    """Sizes in bytes and the SHA-256 of the compressed file."""

    stored_size_bytes: int
    raw_size_bytes: int
    sha256: str


def pack(raw: Path, packed: Path) -> Packed:
    """Compress `raw` to `packed` with gzip level 6; equal input gives equal bytes."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, GZIP_FORMAT)
    digest, stored_size, raw_size = hashlib.sha256(), 0, 0
    with raw.open("rb") as source, packed.open("xb") as target:
        while chunk := source.read(CHUNK):
            raw_size += len(chunk)
            out = compressor.compress(chunk)
            digest.update(out)
            stored_size += target.write(out)
        out = compressor.flush()
        digest.update(out)
        stored_size += target.write(out)
    return Packed(stored_size, raw_size, digest.hexdigest())


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
