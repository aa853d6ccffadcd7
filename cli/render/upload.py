"""A file on its way up: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import time
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.text import Text

from cli.render.progress import QUIET_S
from cli.render.units import duration, size
from cli.render.words import word


class UploadView(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...
    def advance(self, count: int) -> None: ...


def upload_view_on(console: Console, name: str, size_bytes: int) -> UploadView:
    terminal = console.is_terminal and not console.is_dumb_terminal
    return _Bar(console, name, size_bytes) if terminal else _Lines(console, name, size_bytes)


class _Bar:
    def __init__(self, console: Console, name: str, size_bytes: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._row = self._progress.add_task(word(name), total=size_bytes)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

    def advance(self, count: int) -> None:
        self._progress.advance(self._row, count)


class _Lines:
    def __init__(self, console: Console, name: str, size_bytes: int) -> None:
        self._console = console
        self._name, self._size_bytes, self._sent = word(name), size_bytes, 0
        self._began = self._told_at = time.monotonic()

    def __enter__(self) -> Self:
        self._line(f"uploading {self._name}, {size(self._size_bytes)}")
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self._line(f"uploaded {self._name}, {size(self._sent)} in {duration(time.monotonic() - self._began)}")

    def advance(self, count: int) -> None:
        self._sent += count
        if time.monotonic() - self._told_at >= QUIET_S:
            self._told_at = time.monotonic()
            self._line(f"uploading {self._name}, {size(self._sent)} of {size(self._size_bytes)}")

    def _line(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)
        self._console.file.flush()
