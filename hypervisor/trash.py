"""Quarantine for disks: what is no longer wanted waits here before it is deleted.

<root>/<uid>.<operation>/entry.json   what it is, whose, why, since when, until when
<root>/<uid>.<operation>/<uid>.qcow2  the volume file, and its receipt
<root>/.emptied/<uid>.<operation>     what was deleted and why, until somebody has told of it
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypervisor import qcow2
from hypervisor.contract import Permanent
from hypervisor.free_space import disk_fault
from hypervisor.receipts import checked_name, receipt_path, stale_parts, sync_directory, write_durably

KEEP_FOR = timedelta(hours=24)
ENTRY_FILE = "entry.json"
ENTRY_NAME = re.compile(r"vol-[a-z0-9-]+\.op-[a-z0-9-]+(\.\d+)*")  # of the directories that we make
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
    format: str = ""  # of the volume: "qcow2" or "raw"
    volume_size_bytes: int = 0  # what a guest saw of it


@dataclass(frozen=True, slots=True)
class Emptied:
    """One volume that was deleted for good. `why` is the end of the sentence "it was deleted because …"."""

    entry: TrashEntry
    why: str


class Trash:
    """The trash of the volumes in one directory, kept for so long. Raises Permanent when the file system fails."""

    def __init__(self, root: Path, volumes: Path, keep_for: timedelta = KEEP_FOR) -> None:
        self._root = root
        self._volumes = volumes
        self._keep_for = keep_for
        self._emptied = root / ".emptied"
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def discard(self, uid: str, *, owner: str, reason: str, operation: str) -> TrashEntry | None:
        """Move the volume's file and receipt here. Again: gives the entry made before. None: there never was a file.

        With nothing to keep it for, it is deleted at once.
        """
        checked_name(uid, "volume id")
        checked_name(operation, "operation")
        with self._alone():
            try:
                entry = self._discard(uid, owner, reason, operation)
            except OSError as fault:
                raise disk_fault(fault, self._root, f"moving volume {uid} to the trash") from fault
            if entry is not None and not self._keep_for:
                self._delete(entry, "this node keeps no trash")
            return entry

    def restore(self, name: str) -> TrashEntry | None:
        """Move an entry's files back to the volumes. Again, when it is back already: None.

        Permanent: there is no such entry, or another volume has its place.
        """
        checked_name(name, "trash entry")
        with self._alone():
            entry = _read(self._root / name)
            if entry is None:
                return None
            try:
                self._put_back(entry)
            except OSError as fault:
                raise disk_fault(fault, self._volumes, f"restoring volume {entry.uid} from the trash") from fault
            return entry

    def take_again(self, name: str, *, uid: str, owner: str, reason: str, operation: str) -> TrashEntry | None:
        """Undo `restore`, as far as it came; an entry that it did not touch stays what it was."""
        with self._alone():
            entry = _read(self._root / name)
            if entry is not None:
                for file in entry.files:
                    moved, place = self._volumes / file, self._root / name / file
                    if moved.exists() and not place.exists():
                        moved.rename(place)
                return entry
        return self.discard(uid, owner=owner, reason=reason, operation=operation)

    def delete(self, name: str, why: str) -> TrashEntry | None:
        """Delete one entry now. None: there is none of that name."""
        checked_name(name, "trash entry")
        with self._alone():
            entry = _read(self._root / name)
            if entry is not None:
                self._delete(entry, why)
            return entry

    def _forget_empty(self) -> None:
        """Remove what a killed process left of entries: their directories. Under the lock none of them is new."""
        for path in self._root.iterdir():
            if ENTRY_NAME.fullmatch(path.name) and path.is_dir() and not any(path.iterdir()):
                path.rmdir()

    def entries(self) -> list[TrashEntry]:
        """What lies here, oldest first. Names that we did not write are passed over."""
        found = [entry for path in self._root.iterdir() if (entry := _read(path))]
        return sorted(found, key=lambda entry: (entry.discarded_at, entry.name))

    def empty(self, *, need_bytes: int = 0, purpose: str = "") -> list[TrashEntry]:
        """Delete what has expired, then the oldest until `need_bytes` have come free; returns what went."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        removed: list[TrashEntry] = []
        with self._alone():
            self._forget_empty()
            for entry in self.entries():
                if entry.expires_at <= now:
                    self._delete(entry, f"its time was over at {entry.expires_at}")
                    removed.append(entry)
            freed_bytes = sum(entry.size_bytes for entry in removed)
            for entry in self.entries():
                if freed_bytes >= need_bytes:
                    break
                self._delete(entry, f"space was needed{purpose and f' for {purpose}'}")
                removed.append(entry)
                freed_bytes += entry.size_bytes
        return removed

    def tell(self, say: Callable[[Emptied], None]) -> None:
        """Say of each volume that was deleted that it was; what `say` could not say is said the next time.

        For one process at a time. Takes no lock: what it waits for when it speaks must hold up nobody's work.
        """
        notes = sorted(self._emptied.iterdir()) if self._emptied.exists() else []
        for note in notes:
            if note.suffix == ".new":  # being written
                continue
            fields = json.loads(note.read_bytes())
            say(Emptied(_entry(fields["entry"]), fields["why"]))
            note.unlink()

    def _discard(self, uid: str, owner: str, reason: str, operation: str) -> TrashEntry | None:
        artefacts = [self._volumes / f"{uid}.{format}" for format in VOLUME_FORMATS]
        for part in (part for artefact in artefacts for part in stale_parts(artefact)):
            part.unlink()  # of an attempt that was killed: never whole, and nobody will go on with it
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
        format, volume_size_bytes = _volume_in(files)
        entry = TrashEntry(
            name=directory.name,
            uid=uid,
            owner=owner,
            reason=reason,
            operation=operation,
            size_bytes=sum(path.stat().st_blocks * 512 for path in files),
            discarded_at=now.isoformat(timespec="milliseconds"),
            expires_at=(now + self._keep_for).isoformat(timespec="milliseconds"),
            files=tuple(path.name for path in files),
            format=format,
            volume_size_bytes=volume_size_bytes,
        )
        write_durably(directory / ENTRY_FILE, json.dumps(asdict(entry), indent=1).encode())
        sync_directory(self._root)
        return directory

    def _put_back(self, entry: TrashEntry) -> None:
        directory = self._root / entry.name
        waiting = [file for file in entry.files if (directory / file).exists()]
        for file in waiting:
            if (self._volumes / file).exists():
                raise Permanent(
                    f"{file} is among the volumes of this node already; nothing was restored over it",
                    advice=f"Delete the trash entry {entry.name} if nobody wants it.",
                )
        for file in sorted(waiting, key=lambda name: not name.endswith(".receipt")):  # never a disk without its proof
            (directory / file).rename(self._volumes / file)
        sync_directory(self._volumes)
        (directory / ENTRY_FILE).unlink()
        if not any(directory.iterdir()):
            directory.rmdir()
        sync_directory(self._root)

    def _delete(self, entry: TrashEntry, why: str) -> None:
        directory = self._root / entry.name
        try:
            for format in VOLUME_FORMATS:
                artefact = directory / f"{entry.uid}.{format}"
                artefact.unlink(missing_ok=True)
                receipt_path(artefact).unlink(missing_ok=True)
            # After the files, for on a full disk there is no room for a note before.
            self._emptied.mkdir(exist_ok=True, mode=0o700)
            write_durably(self._emptied / entry.name, json.dumps({"entry": asdict(entry), "why": why}).encode())
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
        entry = _entry(json.loads((directory / ENTRY_FILE).read_bytes()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
        return None
    return entry if entry.name == directory.name else None


def _entry(fields: dict[str, Any]) -> TrashEntry:
    return TrashEntry(**{**fields, "files": tuple(fields["files"])})


def _volume_in(files: list[Path]) -> tuple[str, int]:
    """Format and size, as a guest sees it, of the volume among these files."""
    for path in files:
        if path.suffix == ".qcow2":
            return "qcow2", qcow2.virtual_size(path) or 0
        if path.suffix == ".raw":
            return "raw", path.stat().st_size
    return "", 0
