"""What a node remembers of its guests on disk, so that any process can tell later how a guest ended.

    guests/<uid>/driver      "kvm" or "lxc": this guest is ours; written before anything is started
    guests/<uid>/began       the guest was started by us and nobody has cleared its end since
    guests/<uid>/asked       we are powering it off: whatever ends it now was our wish
    guests/<uid>/ended.json  {"state": "halted" | "crashed", "reason": "..."}: written by the first who knows

Each fact is a file of its own: no process ever rewrites what another one wrote, so there is nothing to lock.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hypervisor.contract import Observation, Observed

FORGOTTEN = ".forgotten-"


class GuestNotes:
    """The notes below `guests_dir` about the guests of one driver."""

    def __init__(self, guests_dir: Path, driver: str) -> None:
        self.guests_dir = guests_dir
        self.driver = driver

    def directory(self, uid: str) -> Path:
        """The guest's own directory; everything in it goes with `forget`."""
        return self.guests_dir / uid

    def adopt(self, uid: str) -> bool:
        """Note that the guest belongs to this driver. True: it was not known before."""
        if self.knows(uid):
            return False
        self.guests_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.directory(uid).mkdir(mode=0o711, exist_ok=True)
        self._write(uid, "driver", self.driver)
        return True

    def knows(self, uid: str) -> bool:
        try:
            return (self.directory(uid) / "driver").read_text() == self.driver
        except FileNotFoundError:
            return False

    def known(self) -> list[str]:
        """The uids of all guests of this driver."""
        try:
            entries = sorted(entry.name for entry in self.guests_dir.iterdir())
        except FileNotFoundError:
            return []
        return [uid for uid in entries if not uid.startswith(FORGOTTEN) and self.knows(uid)]

    def starting(self, uid: str) -> None:
        """Clear the end of the last run."""
        for name in ("began", "asked", "ended.json"):
            (self.directory(uid) / name).unlink(missing_ok=True)

    def began(self, uid: str) -> None:
        self._write(uid, "began", "")

    def has_begun(self, uid: str) -> bool:
        return (self.directory(uid) / "began").exists()

    @contextmanager
    def asking(self, uid: str) -> Iterator[None]:
        """While inside, an end of the guest is our wish. If the work is broken off, the mark goes."""
        self.mark_asked(uid)
        try:
            yield
        except BaseException:
            (self.directory(uid) / "asked").unlink(missing_ok=True)
            raise

    def mark_asked(self, uid: str) -> None:
        if self.directory(uid).exists():
            self._write(uid, "asked", "")

    def was_asked(self, uid: str) -> bool:
        return (self.directory(uid) / "asked").exists()

    def ended(self, uid: str, state: Observed, reason: str) -> Observation:
        """Note how the guest ended, unless somebody knew before. Returns what holds."""
        path = self.directory(uid) / "ended.json"
        temporary = path.with_name(f"ended.{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):  # a guest that was forgotten meanwhile needs no note
            temporary.write_text(json.dumps({"state": state, "reason": reason}))
            with suppress(FileExistsError):
                os.link(temporary, path)
            temporary.unlink()
        return self.end_of(uid) or Observation(uid, state, reason)

    def halted(self, uid: str, reason: str) -> None:
        """Note that the guest is off by our own doing, whatever was noted before."""
        (self.directory(uid) / "ended.json").unlink(missing_ok=True)
        self.ended(uid, Observed.HALTED, reason)

    def end_of(self, uid: str) -> Observation | None:
        try:
            note = json.loads((self.directory(uid) / "ended.json").read_text())
        except FileNotFoundError:
            return None
        return Observation(uid, Observed(note["state"]), note["reason"])

    def forget(self, uid: str) -> None:
        """All notes go at once, whoever is writing one: nobody sees a guest of which half is forgotten."""
        with suppress(FileNotFoundError):
            self.directory(uid).rename(self.guests_dir / f"{FORGOTTEN}{uuid.uuid4().hex}")
        for directory in self.guests_dir.glob(f"{FORGOTTEN}*"):
            _remove(directory)

    def _write(self, uid: str, name: str, text: str) -> None:
        path = self.directory(uid) / name
        temporary = path.with_name(f"{name}.{uuid.uuid4().hex}")
        temporary.write_text(text)
        temporary.replace(path)


def _remove(directory: Path) -> None:
    """A writer that had come in just before the directory was renamed may still add a file to it."""
    while directory.exists():
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            continue
        except OSError as fault:
            if fault.errno != errno.ENOTEMPTY:
                raise
