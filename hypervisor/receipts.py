"""Receipts: small JSON files that prove that the artefact beside them is whole.

    write to <name>.<tag>.part ──► verify ──► fsync ──► rename to <name> ──► fsync directory ──► <name>.receipt

A receipt without its artefact, or the other way round, proves nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from hypervisor.contract import Permanent

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was true of an artefact when it was finished.

    `size_bytes` is the length of the file, or None for a file whose length changes in use (qcow2).
    `facts` are plain values of the artefact's own kind: digests, sizes.
    """

    file_name: str
    size_bytes: int | None
    operation: str
    written_at: str
    facts: Mapping[str, str | int] = field(default_factory=dict)


def checked_name(name: str, what: str) -> str:
    """The name itself if it is safe as part of a file name; Permanent otherwise."""
    if not SAFE_NAME.fullmatch(name):
        raise Permanent(
            f"The {what} {name[:80]!r} cannot be part of a file name",
            advice="Use letters, digits, dots, underscores and hyphens, at most 200, starting with a letter or digit.",
        )
    return name


def receipt_path(artefact: Path) -> Path:
    return artefact.with_name(f"{artefact.name}.receipt")


def temporary_path(artefact: Path, tag: str) -> Path:
    """Where the attempt `tag` writes the artefact until it is whole."""
    return artefact.with_name(f"{artefact.name}.{checked_name(tag, 'tag')}.part")


def stale_parts(artefact: Path) -> list[Path]:
    """Temporary files that attempts at this artefact and its receipt left behind."""
    receipt = _new_of(receipt_path(artefact))
    return [*sorted(artefact.parent.glob(f"{artefact.name}.*.part")), *([receipt] if receipt.exists() else [])]


def sync_directory(directory: Path) -> None:
    """Make renames and new names in the directory last through a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new_of(path: Path) -> Path:
    """One name for all attempts, so that what a killed one leaves is taken up by the next."""
    return path.with_name(f"{path.name}.new")


def write_durably(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace a small file at once: readers see the old content or the new, also after a power cut.

    The caller holds the lock of what the file belongs to.
    """
    temporary = _new_of(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def commit(
    temporary: Path, artefact: Path, *, operation: str, facts: Mapping[str, str | int], length_is_fixed: bool = True
) -> Receipt:
    """Turn a finished, verified temporary file into the artefact and write its receipt. Raises OSError."""
    descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
        size_bytes = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    temporary.replace(artefact)
    sync_directory(artefact.parent)
    receipt = Receipt(
        file_name=artefact.name,
        size_bytes=size_bytes if length_is_fixed else None,
        operation=operation,
        written_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        facts=dict(facts),
    )
    write_durably(receipt_path(artefact), json.dumps(asdict(receipt), indent=1).encode())
    return receipt


def read(artefact: Path) -> Receipt | None:
    """The receipt of a whole artefact; None if either is missing, unreadable, or of another size."""
    try:
        receipt = Receipt(**json.loads(receipt_path(artefact).read_bytes()))
        size_bytes = artefact.stat().st_size
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if receipt.file_name != artefact.name or receipt.size_bytes not in (None, size_bytes):
        return None
    return receipt
