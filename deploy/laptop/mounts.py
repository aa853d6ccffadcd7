"""What is mounted, as /proc/self/mountinfo tells it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    target: Path
    kind: str  # file system type
    options: tuple[str, ...]  # of the file system, not of the mount


def mounts() -> list[Mount]:
    """All mounts of this process's namespace, in the order in which they were made."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ", 1)
        target = _OCTAL.sub(lambda match: chr(int(match[1], 8)), before.split()[4])
        kind, _, options = after.split()[:3]
        found.append(Mount(Path(target), kind, tuple(options.split(","))))
    return found


def mounts_below(directory: Path) -> list[Path]:
    """Mount points at or below the directory, the innermost first."""
    return [mount.target for mount in reversed(mounts()) if mount.target.is_relative_to(directory)]
