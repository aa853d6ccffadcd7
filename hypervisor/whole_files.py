"""Small files that readers see either as they were or as they shall be, never half.

For what can be written again at any time (files in /run, caches): nothing here waits for the disk.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def write_whole(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Put `text` in the place of whatever `path` holds, in one rename. A file that holds it already is left alone.

    The caller holds the lock of what the file belongs to: all writers use one name, so that the next one takes up
    what a killed one left.
    """
    if _holds(path, text, mode):
        return  # where /run is on a disk, a rename over a file waits for the disk
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _holds(path: Path, text: str, mode: int) -> bool:
    try:
        return stat.S_IMODE(path.stat().st_mode) == mode and path.read_bytes() == text.encode()
    except FileNotFoundError:
        return False
