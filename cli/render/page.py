"""A page of wrapped text with headings, named fields and verbatim output."""

from __future__ import annotations

import textwrap

from rich.text import Text

from cli.render.words import harmless


class Page:
    """Lines of at most `width` columns. Words are never cut: an id or a path stays whole, whatever its length."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.lines: list[Text] = []

    def blank(self) -> None:
        if self.lines and self.lines[-1].plain:
            self.lines.append(Text())

    def line(self, *parts: str | tuple[str, str], indent: int = 0) -> None:
        """One line of plain and styled parts, not wrapped."""
        self.lines.append(Text.assemble(" " * indent, *parts))

    def heading(self, text: str) -> None:
        self.blank()
        self.line((text, "bold"))

    def text(self, text: str, *, indent: int = 0, hang: int = 0, style: str = "") -> None:
        """A paragraph; its further lines stand `hang` columns deeper."""
        self._wrapped(text, " " * indent, " " * (indent + hang), style)

    def field(self, name: str, value: str, *, indent: int = 2, column: int = 12, style: str = "") -> None:
        """A value beside its name; further lines stand under the value."""
        start = len(self.lines)
        self._wrapped(value, " " * (indent + column), " " * (indent + column), style)
        first = self.lines[start]
        rest = first[indent + column :]
        self.lines[start] = Text.assemble(" " * indent, (f"{name:<{column}}", "dim"), rest)

    def verbatim(self, text: str, *, indent: int) -> None:
        """Output of a tool, line by line and untouched but for control characters."""
        for line in harmless(text).rstrip("\n").split("\n"):
            self.line(("│ ", "dim"), line.rstrip(), indent=indent)

    def _wrapped(self, text: str, first: str, further: str, style: str) -> None:
        wrapped = textwrap.wrap(
            harmless(text),
            width=self.width,
            initial_indent=first,
            subsequent_indent=further,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in wrapped or [first.rstrip()]:
            body = line.lstrip(" ")
            self.lines.append(Text.assemble(line[: len(line) - len(body)], (body, style)))
