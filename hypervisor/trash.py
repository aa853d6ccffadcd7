"""Quarantine for disks: what is no longer wanted waits here before it is deleted.

<root>/<uid>.<operation>/entry.json   what it is, whose, why, since when, until when
<root>/<uid>.<operation>/<uid>.qcow2  the volume file, and its receipt
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypervisor.free_space import disk_fault
from hypervisor.receipts import checked_name, receipt_path, sync_directory, write_durably

KEEP_FOR = timedelta(hours=24)
ENTRY_FILE = "entry.json"
VOLUME_FORMATS = ("qcow2", "raw")


@dataclass(frozen=True, slots=True)
class TrashEntry:
    """One discarded volume. `size_bytes` is what deleting it gives back to the disk; times are ISO 8601 in UTC."""

    name: str
    uid: str
    owner: str
    reason: str
    operation: str
    size_bytes: int
    discarded_at: str
    expires_at: str
    files: tuple[str, ...]


class Trash:
    """The trash of the volumes in one directory. Raises Permanent when the file system fails."""

    def __init__(self, root: Path, volumes: Path) -> None:
        self._root = root
        self._volumes = volumes
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def discard(self, uid: str, *, owner: str, reason: str, operation: str) -> TrashEntry | None:
        """Move the volume's file and receipt here. Again: gives the entry made before. None: there never was a file."""
        checked_name(uid, "volume id")
        checked_name(operation, "operation")
        with self._alone():
            try:
                return self._discard(uid, owner, reason, operation)
            except OSError as fault:
                raise disk_fault(fault, self._root, f"moving volume {uid} to the trash") from fault

    def entries(self) -> list[TrashEntry]:
        """What lies here, oldest first. Names that we did not write are passed over."""
        found = [entry for path in self._root.iterdir() if (entry := _read(path))]
        return sorted(found, key=lambda entry: (entry.discarded_at, entry.name))

    def empty(self, *, older_than: timedelta = KEEP_FOR, need_bytes: int = 0) -> list[TrashEntry]:
        """Delete entries older than that, then the oldest until `need_bytes` have come free; returns what went."""
        latest = (datetime.now(UTC) - older_than).isoformat(timespec="milliseconds")
        removed: list[TrashEntry] = []
        freed_bytes = 0
        with self._alone():
            for entry in self.entries():
                if entry.discarded_at > latest and freed_bytes >= need_bytes:
                    break
                self._delete(entry)
                removed.append(entry)
                freed_bytes += entry.size_bytes
        return removed

    def _discard(self, uid: str, owner: str, reason: str, operation: str) -> TrashEntry | None:
        artefacts = [self._volumes / f"{uid}.{format}" for format in VOLUME_FORMATS]
        present = [path for path in (*artefacts, *map(receipt_path, artefacts)) if path.exists()]
        known = [entry for entry in self.entries() if entry.uid == uid]
        if not present:
            return known[-1] if known else None
        # A receipt alone is what a crash in the middle of an earlier move left: it follows its file.
        if known and not any(path.exists() for path in artefacts):
            directory = self._root / known[-1].name
        else:
            directory = self._new_entry(uid, owner, reason, operation, present)
        for path in present:
            path.rename(directory / path.name)
        sync_directory(directory)
        sync_directory(self._volumes)
        return _read(directory)

    def _new_entry(self, uid: str, owner: str, reason: str, operation: str, files: list[Path]) -> Path:
        directory = self._root / f"{uid}.{operation}"
        number = 1
        while directory.exists() and any((directory / path.name).exists() for path in files):
            number += 1
            directory = self._root / f"{uid}.{operation}.{number}"
        directory.mkdir(exist_ok=True, mode=0o700)
        now = datetime.now(UTC)
        entry = TrashEntry(
            name=directory.name,
            uid=uid,
            owner=owner,
            reason=reason,
            operation=operation,
            size_bytes=sum(path.stat().st_blocks * 512 for path in files),
            discarded_at=now.isoformat(timespec="milliseconds"),
            expires_at=(now + KEEP_FOR).isoformat(timespec="milliseconds"),
            files=tuple(path.name for path in files),
        )
        write_durably(directory / ENTRY_FILE, json.dumps(asdict(entry), indent=1).encode())
        sync_directory(self._root)
        return directory

    def _delete(self, entry: TrashEntry) -> None:
        directory = self._root / entry.name
        try:
            for format in VOLUME_FORMATS:
                artefact = directory / f"{entry.uid}.{format}"
                artefact.unlink(missing_ok=True)
                receipt_path(artefact).unlink(missing_ok=True)
            (directory / ENTRY_FILE).unlink()
            if not any(directory.iterdir()):  # what somebody else put beside it stays
                directory.rmdir()
            sync_directory(self._root)
        except OSError as fault:
            raise disk_fault(fault, self._root, f"deleting {entry.name} from the trash") from fault

    @contextmanager
    def _alone(self) -> Iterator[None]:
        descriptor = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _read(directory: Path) -> TrashEntry | None:
    try:
        fields = json.loads((directory / ENTRY_FILE).read_bytes())
        entry = TrashEntry(**{**fields, "files": tuple(fields["files"])})
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
        return None
    return entry if entry.name == directory.name else None
