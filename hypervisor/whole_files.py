"""Small files that readers see either as they were or as they shall be, never half.

For what can be written again at any time (files in /run, caches): nothing here waits for the disk.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def write_whole(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Put `text` in the place of whatever `path` holds, in one rename. A file that holds it already is left alone."""
    if _holds(path, text, mode):
        return  # where /run is on a disk, a rename over a file waits for the disk
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _holds(path: Path, text: str, mode: int) -> bool:
    try:
        return stat.S_IMODE(path.stat().st_mode) == mode and path.read_bytes() == text.encode()
    except FileNotFoundError:
        return False
