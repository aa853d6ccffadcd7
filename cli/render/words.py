"""What every view agrees on: how a text from outside is made harmless, and which state has which colour."""

from __future__ import annotations

import re
from typing import Any

_GOOD = {"done", "running", "available", "attached", "online"}
_BAD = {"failed", "error", "lost", "crashed", "absent", "offline"}
_QUIET = {"blocked", "halted", "stopped", "terminated", "deleted", "purged", "cancelled", "undone", "unknown"}

# Names and outputs come from others; what moves cursors or colours on a terminal is shown, not done.
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """Colours are dropped, other control characters become visible (`\\x1b`); line feeds and tabs stay."""
    text = _COLOUR.sub("", text.replace("\r\n", "\n"))
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def word(value: Any) -> str:
    """One value as one line of text; nothing is "-"."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(word(item) for item in value)
    return " ".join(harmless(str(value)).split())


def state_style(state: str | None) -> str:
    if state in _GOOD:
        return "green"
    if state in _BAD:
        return "bold red"
    return "dim" if state in _QUIET or not state else "yellow"


def operation_id(subject: dict[str, Any]) -> str | None:
    """The open operation of an API object, which comes as an id or, after a verb, whole."""
    operation = subject.get("operation")
    return operation["id"] if isinstance(operation, dict) else operation
