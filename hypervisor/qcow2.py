"""What the header of a qcow2 file tells."""

from __future__ import annotations

import struct
from pathlib import Path

MAGIC = b"QFI\xfb"
HEADER = struct.Struct(">4sIQIIQ")  # magic, version, backing offset, backing length, cluster bits, virtual size


def virtual_size(path: Path) -> int | None:
    """The size in bytes that a guest sees; None if it is no qcow2 file, or gone."""
    try:
        with path.open("rb") as file:
            header = file.read(HEADER.size)
    except FileNotFoundError:
        return None
    if len(header) < HEADER.size or not header.startswith(MAGIC):
        return None
    return int(HEADER.unpack(header)[-1])
