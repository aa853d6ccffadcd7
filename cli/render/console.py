"""The two places to write to: results on stdout, progress and notices on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

PAGE_WIDTH = 80
WIDEST_PAGE = 100


def console_on(stream: TextIO) -> Console:
    """Colours and movement on a terminal only, whatever the environment claims."""
    terminal = stream.isatty()
    return Console(
        file=stream,
        force_terminal=terminal,
        highlight=False,
        markup=False,
        emoji=False,
        color_system="auto" if terminal else None,
    )


def page_width(console: Console) -> int:
    """The width to wrap text at: that of the terminal, within what reads well; 80 when piped."""
    return min(console.width, WIDEST_PAGE) if console.is_terminal else PAGE_WIDTH


def print_lines(lines: Iterable[Text], console: Console | None = None) -> None:
    console = console or console_on(sys.stdout)
    for line in lines:
        console.print(line, soft_wrap=True)


def print_json(value: Any) -> None:
    """API objects as they are: for programs."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def notice(text: str) -> None:
    """A line beside the result."""
    sys.stderr.write(f"vdc: {text}\n")
    sys.stderr.flush()
