"""One short line per stage with its seconds; on a terminal the running stage shows how far it is."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

REDRAW_S = 0.2  # on a terminal
REMIND_S = 10.0  # elsewhere a long stage says so now and then
BAR_WIDTH = 24


class Stage:
    """What a stage tells while it runs: `fraction` (0 to 1, None if unknown) and a few words in `note`."""

    def __init__(self, name: str, does: str) -> None:
        self.name = name
        self.does = does
        self.fraction: float | None = None
        self.note = ""
        self._began = time.monotonic()

    def line(self) -> str:
        return f"  {self.name:<14} {self.note or self.does}"

    def bar(self) -> str:
        spent_s = time.monotonic() - self._began
        if self.fraction is None:
            return f"{self.line()} … {spent_s:.0f} s"
        filled = int(min(max(self.fraction, 0.0), 1.0) * BAR_WIDTH)
        return f"{self.line()} [{'█' * filled}{'·' * (BAR_WIDTH - filled)}] {self.fraction:4.0%} {spent_s:.0f} s"

    def ended(self, word: str = "") -> str:
        return f"{self.line()}{word}  {time.monotonic() - self._began:.1f} s"


def _show_until(done: threading.Event, current: Stage) -> None:
    if sys.stdout.isatty():
        while not done.wait(REDRAW_S):
            sys.stdout.write(f"\r\033[K{current.bar()}")
            sys.stdout.flush()
        sys.stdout.write("\r\033[K")
        return
    while not done.wait(REMIND_S):
        print(current.bar(), flush=True)


@contextmanager
def stage(name: str, does: str) -> Iterator[Stage]:
    """Times the block and prints its line, also when it fails."""
    current = Stage(name, does)
    done = threading.Event()
    shower = threading.Thread(target=_show_until, args=(done, current), daemon=True)
    shower.start()
    word = "  FAILED"
    try:
        yield current
        word = ""
    finally:
        done.set()
        shower.join()
        print(current.ended(word), flush=True)
