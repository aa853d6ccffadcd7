"""Makes something happen at an exact place in a worker, once: it dies, raises, hangs, cancels, or works twice.

    before ──► work or undo, with places inside ──► after ──► settling ──► uncommitted ──COMMIT──► committed ──► bell
                        └ during

A test arms failpoints as files in a directory; the worker that comes to the place takes the file away, and acts. The
product knows nothing of this: `install` wraps the parts of a worker process of the tests.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from django.db import connection

from core.errors import Permanent, Transient
from operations import engine, protocol, register
from operations.run import StepRun
from operations.task import StepTask

PROJECT = Path(__file__).resolve().parent.parent.parent
NOT_OURS = tuple(str(PROJECT / part) for part in (".venv", "tests/sweep/failpoints.py"))
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.chown", "subprocess.Popen"}
LOOK_S = 0.02
PARTY_S = 10


@dataclass(frozen=True)
class Failpoint:
    """When: step `position` of any operation newer than `newer_than`, in its undo or not, at `moment`.

    `action`: twice, transient, permanent, unexpected, kill, hang, cancel, or record: write down which places the work
    passes. `place` names one of those, for the moment "during". `party`: act when so many workers have come.
    """

    name: str
    position: int
    moment: str
    action: str
    undoing: bool = False
    newer_than: int = 0
    place: str = ""
    party: int = 1


def arm(directory: Path, point: Failpoint) -> None:
    """From now on it waits for a worker."""
    fresh = directory / f"{point.name}.new"
    fresh.write_text(json.dumps(asdict(point)))
    fresh.rename(directory / f"{point.name}.armed")


def is_reached(directory: Path, point: Failpoint) -> bool:
    return (directory / f"{point.name}.taken").exists()


def places(directory: Path, point: Failpoint) -> list[str]:
    """What a failpoint with the action "record" has seen."""
    file = directory / f"{point.name}.places"
    return json.loads(file.read_text()) if file.exists() else []


def disarm(directory: Path) -> None:
    for file in directory.iterdir():
        file.unlink(missing_ok=True)


class _Here(threading.local):
    """What the thread is at: whose step, and whether it is inside of the work."""

    run: StepRun | None = None
    inside = False
    recording: list[str] | None = None


class Failpoints:
    """Those of one worker process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._here = _Here()

    def install(self) -> None:
        """Wrap every step task, the settlement, and whatever changes files."""
        for task in register.tasks.values():
            self._wrap(task)
        self._wrap_settling()
        for word in ("progress", "ran"):
            self._wrap_watch(word)
        sys.addaudithook(self._audit)

    # --- around the work ---------------------------------------------------------------------------------------

    def _wrap(self, task: StepTask) -> None:
        task.work = self._around(task.work)
        if task.undo is not None:
            task.undo = self._around(task.undo)

    def _around(self, work: Callable[[StepRun], Any]) -> Callable[[StepRun], Any]:
        def worked(run: StepRun) -> Any:
            self._here.run = run
            try:
                self._come(run, "before", work)
                result = self._inside(run, work)
                self._come(run, "after", work)
                return result
            finally:
                self._here.run = None

        return worked

    def _inside(self, run: StepRun, work: Callable[[StepRun], Any]) -> Any:
        self._here.recording = [] if (recorder := self._take(run, "during", "", action="record")) else None
        self._here.inside = True
        try:
            return work(run)
        finally:
            self._here.inside = False
            if recorder:
                (self._directory / f"{recorder.name}.places").write_text(json.dumps(self._here.recording))

    def _wrap_watch(self, word: str) -> None:
        real = getattr(StepRun, word)

        def told(run: StepRun, *arguments: Any) -> Any:
            result = real(run, *arguments)
            self._pass(f"watch.{word}")
            return result

        setattr(StepRun, word, told)

    def _audit(self, event: str, arguments: tuple) -> None:
        if not self._here.inside:
            return
        if event in CHANGES or (event == "open" and _writes(arguments)):
            self._pass(event)

    def _pass(self, what: str) -> None:
        """The work comes by a place where it changes something, or has just said that it did."""
        run, inside = self._here.run, self._here.inside
        if run is None or not inside:
            return
        self._here.inside = False  # what a failpoint does itself is none
        try:
            place = f"{what} in {_line_of_ours()}"
            if self._here.recording is not None and place not in self._here.recording:
                self._here.recording.append(place)
            self._come(run, "during", None, place)
        finally:
            self._here.inside = inside

    # --- around the settlement ---------------------------------------------------------------------------------

    def _wrap_settling(self) -> None:
        settle = protocol._settle

        def settled(*arguments: Any) -> Any:
            run = next(argument for argument in arguments if isinstance(argument, StepRun))
            self._come(run, "settling", None)
            with self._around_commit(run):
                return settle(*arguments)

        protocol._settle = settled

    @contextmanager
    def _around_commit(self, run: StepRun) -> Iterator[None]:
        """The connection is this thread's own."""
        commit = connection.commit

        def committed() -> None:
            self._come(run, "uncommitted", None)
            commit()
            self._come(run, "committed", None)

        connection.commit = committed
        try:
            yield
        finally:
            connection.commit = commit

    # --- acting ------------------------------------------------------------------------------------------------

    def _come(self, run: StepRun, moment: str, work: Callable | None, place: str = "") -> None:
        point = self._take(run, moment, place)
        if point is not None:
            self._meet(point)
            getattr(self, f"_{point.action}")(run, work)

    def _take(self, run: StepRun, moment: str, place: str, action: str = "") -> Failpoint | None:
        for file in sorted(self._directory.glob("*.armed")):
            try:
                point = Failpoint(**json.loads(file.read_text()))
            except FileNotFoundError:
                continue  # another worker has taken it
            fits = (
                (point.position, point.undoing, point.moment) == (run.step.position, run.undoing, moment)
                and run.operation.pk > point.newer_than
                and (point.action == "record") == (action == "record")
                and point.place in ("", place)
            )
            if fits and _renamed(file, file.with_suffix(".taken")):
                return point
        return None

    def _meet(self, point: Failpoint) -> None:
        """Wait until all of the party have come, or until it is clear that the others came by another way."""
        party = point.name.partition("@")[0]
        deadline = time.monotonic() + PARTY_S
        while len(list(self._directory.glob(f"{party}@*.taken"))) < point.party > 1 and time.monotonic() < deadline:
            time.sleep(LOOK_S)

    def _twice(self, run: StepRun, work: Callable[[StepRun], Any]) -> None:
        work(run)

    def _transient(self, run: StepRun, work: object) -> None:
        raise Transient("the sweep says: not now")

    def _permanent(self, run: StepRun, work: object) -> None:
        raise Permanent("the sweep says: never")

    def _unexpected(self, run: StepRun, work: object) -> None:
        raise ZeroDivisionError("the sweep says: nobody thought of this")

    def _kill(self, run: StepRun, work: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # never

    def _hang(self, run: StepRun, work: object) -> None:
        while True:
            run.pause(LOOK_S)

    def _cancel(self, run: StepRun, work: object) -> None:
        engine.cancel(run.operation, reason="the sweep thought better of it")


def _writes(arguments: tuple) -> bool:
    """An "open" that may change the file; Python tells the flags also where only a mode was said."""
    path, _, flags = arguments
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and not str(path).endswith("lock")


def _line_of_ours() -> str:
    """The innermost line of the product that we come from: "receipts.py:105"."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(str(PROJECT)) and not file.startswith(NOT_OURS):
            return f"{Path(file).relative_to(PROJECT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "nowhere"


def _renamed(old: Path, new: Path) -> bool:
    try:
        old.rename(new)
    except FileNotFoundError:
        return False
    return True
