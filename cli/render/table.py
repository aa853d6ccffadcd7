"""Lists as columns: whole cells always, fewer columns where a terminal is narrow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.text import Text

_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """`spare` > 0: may be left out, the highest first, when the terminal is too narrow."""

    title: str
    cell: Callable[[dict[str, Any]], str]
    style: Callable[[dict[str, Any]], str] = lambda item: ""
    right: bool = False
    spare: int = 0


def table(
    columns: Sequence[Column], items: Sequence[dict[str, Any]], *, width: int | None
) -> tuple[list[Text], list[str]]:
    """Lines of the table, and the titles left out to fit `width` (None: every column)."""
    cells = {column: [column.cell(item) for item in items] for column in columns}
    widths = {column: max(cell_len(text) for text in [column.title, *cells[column]]) for column in columns}
    shown = list(columns)
    while width is not None and sum(widths[c] for c in shown) + _GAP * (len(shown) - 1) > width:
        weakest = max(shown, key=lambda column: column.spare)
        if not weakest.spare:
            break
        shown.remove(weakest)
    lines = [_line(shown, widths, {c: c.title for c in shown}, dict.fromkeys(shown, "bold"))]
    for row, item in enumerate(items):
        lines.append(_line(shown, widths, {c: cells[c][row] for c in shown}, {c: c.style(item) for c in shown}))
    return lines, [column.title for column in columns if column not in shown]


def _line(
    columns: list[Column], widths: dict[Column, int], texts: dict[Column, str], styles: dict[Column, str]
) -> Text:
    line = Text()
    for number, column in enumerate(columns):
        text = texts[column]
        padding = " " * (widths[column] - cell_len(text))
        if number:
            line.append(" " * _GAP)
        if column.right:
            line.append(padding)
        line.append(text, style=styles[column])
        if not column.right and column is not columns[-1]:
            line.append(padding)
    return line
