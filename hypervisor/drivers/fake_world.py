"""What the fake hypervisor knows, as small files that the processes of a node share.

    fake/guests/<uid>.json   the last observation of a guest
    fake/made/<uid>.json     what it is made of
    fake/faults/<uid>.json   what shall go wrong with it; "every" stands for all guests
    fake/journal             one line per change, for those who listen

Writers hold the flock of `fake/lock`; readers need none, for files are replaced whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from hypervisor.contract import DiskSpec, GuestFacts, NicSpec, Observation, Observed

JOURNAL_BYTES = 1 << 20  # then a new one is begun
LISTEN_INTERVAL_S = 0.05


@dataclass(frozen=True, slots=True)
class FakeFaults:
    """What shall go wrong."""

    start_fails: str = ""  # "", "transient" or "permanent"
    start_delay_s: float = 0.0
    ignores_poweroff: bool = False
    poweroff_delay_s: float = 0.0
    unreachable: bool = False  # the hypervisor answers nothing; for "every" only


class FakeWorld:
    """The guests of one node, seen by all its processes."""

    def __init__(self, directory: Path) -> None:
        self._guests = directory / "guests"
        self._made = directory / "made"
        self._faults = directory / "faults"
        self._journal = directory / "journal"
        self._lock = directory / "lock"
        for path in (self._guests, self._made, self._faults):
            path.mkdir(parents=True, exist_ok=True)
        self._journal.touch()

    def happen(self, uid: str, state: Observed, reason: str = "") -> Observation:
        """Something becomes of a guest: the driver did it, or it happened behind its back."""
        seen = Observation(uid, state, reason)
        path = self._guests / f"{uid}.json"
        with self._writing():
            if state is Observed.ABSENT:
                _remove(path)
                _remove(self._made / path.name)
            else:
                _new_of(self._made / path.name).unlink(missing_ok=True)
                _replace(path, {"state": state, "reason": reason})
            self._tell({"uid": uid})
        return seen

    def make(self, facts: GuestFacts) -> None:
        """Note what a guest is made of."""
        _replace(self._made / f"{facts.uid}.json", asdict(facts))

    def made_of(self, uid: str) -> GuestFacts | None:
        try:
            made = json.loads((self._made / f"{uid}.json").read_text())
        except FileNotFoundError:
            return None
        disks = tuple(DiskSpec(**disk) for disk in made.pop("disks"))
        return GuestFacts(**{**made, "disks": disks, "nics": tuple(NicSpec(**nic) for nic in made["nics"])})

    def look(self, uid: str) -> Observation:
        try:
            return _observation(uid, (self._guests / f"{uid}.json").read_text())
        except FileNotFoundError:
            return Observation(uid, Observed.ABSENT)

    def look_at_all(self) -> list[Observation]:
        seen = []
        with os.scandir(self._guests) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(".json"))
        for name in names:
            with suppress(FileNotFoundError):  # it went while we looked
                seen.append(_observation(name.removesuffix(".json"), (self._guests / name).read_text()))
        return seen

    def set_faults(self, faults: FakeFaults, uid: str = "every") -> None:
        """From now on these things go wrong with a guest, or with every one. `FakeFaults()` clears them."""
        with self._writing():
            _replace(self._faults / f"{uid}.json", asdict(faults))

    def faults(self, uid: str) -> FakeFaults:
        """The faults of a guest: its own, else those of every one."""
        for name in (uid, "every"):
            with suppress(FileNotFoundError):
                return FakeFaults(**json.loads((self._faults / f"{name}.json").read_text()))
        return FakeFaults()

    def break_line(self, reason: str) -> None:
        """All who listen lose their line."""
        with self._writing():
            self._tell({"lost": reason})

    def listen(self, heard: Callable[[Observation], None], lost: Callable[[str], None]) -> Callable[[], None]:
        """Tell of every change from now on, from a thread. Returns what ends it."""
        journal = self._journal.open()
        journal.seek(0, os.SEEK_END)
        ending = threading.Event()

        def work() -> None:
            for news in self._follow(journal, ending):
                if "lost" in news:
                    lost(news["lost"])
                    return
                heard(self.look(news["uid"]))

        thread = threading.Thread(target=work, name="listen-fake", daemon=True)
        thread.start()

        def stop() -> None:
            ending.set()
            if threading.current_thread() is not thread:
                thread.join()

        return stop

    def _follow(self, journal: TextIO, ending: threading.Event) -> Iterator[dict[str, str]]:
        """What is written to the journal, also when a new one is begun, until `ending` is set."""
        try:
            while not ending.wait(LISTEN_INTERVAL_S):
                replaced = os.fstat(journal.fileno()).st_ino != self._journal.stat().st_ino
                yield from map(json.loads, journal)
                if replaced:
                    journal.close()
                    journal = self._journal.open()
        finally:
            journal.close()

    def _tell(self, news: dict[str, str]) -> None:
        if self._journal.stat().st_size > JOURNAL_BYTES:
            fresh = self._journal.with_name(f"journal.{uuid.uuid4().hex}")
            fresh.touch()
            fresh.replace(self._journal)
        with self._journal.open("a") as journal:
            journal.write(json.dumps(news) + "\n")  # less than a page: readers see all of the line or nothing

    @contextmanager
    def _writing(self) -> Iterator[None]:
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _observation(uid: str, text: str) -> Observation:
    note = json.loads(text)
    return Observation(uid, Observed(note["state"]), note["reason"])


def _remove(path: Path) -> None:
    """The file, and what a killed writer of it left."""
    _new_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _new_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _replace(path: Path, content: dict[str, object]) -> None:
    fresh = _new_of(path)  # the next writer takes up what a killed one left
    fresh.write_text(json.dumps(content))
    fresh.replace(path)
