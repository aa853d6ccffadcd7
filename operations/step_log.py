"""The node's log lines of one step, over all its attempts: kept with its row, so that any web process can show them."""

from __future__ import annotations

import json
import threading
from collections import deque
from typing import Any

MOST_LINES = 200
MOST_BYTES = 64 * 1024
LONGEST_LINE_BYTES = 4096

# Known from the row, or not for its readers: a traceback stays in the log of the lane.
_LEFT_OUT = {
    "timestamp", "level", "event", "logger", "process", "node", "lane", "operation", "step", "subject", "attempt",
    "request_id", "exception", "exc_info", "stack", "_record", "_from_structlog",
}  # fmt: skip


class StepLog:
    """The newest lines, each "<time, ISO 8601> attempt <n> <level> <words> <name>=<value> …". Safe for threads."""

    def __init__(self, kept: str, attempt: int) -> None:
        self._attempt = attempt
        self._lock = threading.Lock()
        self._lines: deque[str] = deque()
        self._size_bytes = 0
        self._version = self._saved = 0
        for line in kept.splitlines():
            self._append(line)

    def add(self, fields: dict[str, Any]) -> None:
        """Keep one line that was logged while the step ran; how an attempt ended has its own place in the row."""
        if "fault" in fields:
            return
        words = [fields["timestamp"], f"attempt {self._attempt}", fields["level"], _plain(fields["event"])]
        words += [f"{name}={_value(said)}" for name, said in fields.items() if name not in _LEFT_OUT]
        with self._lock:
            self._append(_storable(" ".join(words)))
            self._version += 1

    def text(self) -> str:
        with self._lock:
            return "\n".join(self._lines)

    def unsaved(self) -> tuple[int, str | None]:
        """The text, if it has changed since it was last `saved`, and the version to say then."""
        with self._lock:
            return self._version, None if self._version == self._saved else "\n".join(self._lines)

    def saved(self, version: int) -> None:
        self._saved = version

    def _append(self, line: str) -> None:
        self._lines.append(line)
        self._size_bytes += _size(line)
        while len(self._lines) > MOST_LINES or self._size_bytes > MOST_BYTES:
            self._size_bytes -= _size(self._lines.popleft())


def _size(line: str) -> int:
    return len(line.encode()) + 1  # and its line feed


def _plain(words: Any) -> str:
    return " ".join(str(words).split())


def _value(said: Any) -> str:
    text = str(said)
    return text if text and text.isprintable() and not set(text) & set(' "=') else json.dumps(text, ensure_ascii=False)


def _storable(line: str) -> str:
    """What PostgreSQL takes and a terminal survives: whole characters, none that steers, not too many."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
    whole = shown.encode("utf-8", "backslashreplace")
    return (
        whole.decode()
        if len(whole) <= LONGEST_LINE_BYTES
        else whole[:LONGEST_LINE_BYTES].decode("utf-8", "ignore") + "…"
    )
