"""An operation while it runs: a bar for each step on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from cli.render.units import amount, between, duration, now
from cli.render.words import state_style, word

Item = dict[str, Any]

QUIET_S = 10.0
_GLYPHS = {"done": "✔", "failed": "✘", "running": "▶", "undoing": "↶", "undone": "↶", "cancelled": "⊘"}


class View(Protocol):
    """Is shown an operation again and again, and what is to be said in between."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...
    def show(self, operation: Item) -> None: ...
    def say(self, text: str) -> None: ...


def view_on(console: Console) -> View:
    return Bars(console) if console.is_terminal and not console.is_dumb_terminal else Lines(console)


class Lines:
    """One line for each change of a step, and one every ten seconds for a step that goes on."""

    def __init__(self, console: Console, *, quiet_s: float = QUIET_S) -> None:
        self._console = console
        self._quiet_s = quiet_s
        self._told: dict[Any, tuple] = {}
        self._told_at: dict[Any, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return None

    def show(self, operation: Item) -> None:
        steps = operation.get("steps") or []
        # What a step waits for is told when it changes; that it is merely in the queue is not worth a line.
        self._tell("operation", (operation.get("state"), operation.get("waiting_for")), _operation_line(operation))
        for number, step in enumerate(steps, start=1):
            if step.get("state") in {"blocked", "queued"} and number not in self._told:
                continue
            self._tell(number, (step.get("state"), step.get("attempt")), _step_line(number, len(steps), step))

    def say(self, text: str) -> None:
        self._line(text)

    def _tell(self, key: Any, news: tuple, text: str) -> None:
        at = time.monotonic()
        going_on = news[0] in {"running", "undoing"} and key != "operation"
        if self._told.get(key) == news and not (going_on and at - self._told_at[key] >= self._quiet_s):
            return
        self._told[key], self._told_at[key] = news, at
        self._line(text)

    def _line(self, text: str) -> None:
        self._console.print(Text(f"{now():%H:%M:%S} {text}"), soft_wrap=True)
        self._console.file.flush()


def _operation_line(operation: Item) -> str:
    subject = word((operation.get("subject") or {}).get("id"))
    waiting = f", waiting for: {word(operation['waiting_for'])}" if operation.get("waiting_for") else ""
    return (
        f"{word(operation.get('id'))} {word(operation.get('verb'))} {subject} {word(operation.get('state'))}"
        f"{_after(operation)}{waiting}"
    )


def _step_line(number: int, count: int, step: Item) -> str:
    node = f" on {word(step['node'])}" if step.get("node") else ""
    parts = [f"step {number}/{count} {word(step.get('task'))} {word(step.get('state'))}{node}{_after(step)}"]
    if step.get("progress"):
        parts.append(amount(step["progress"]))
    if (step.get("attempt") or 0) > 1:
        parts.append(f"attempt {step['attempt']}")
    if not step.get("ended_at") and step.get("started_at"):
        parts.append(duration(between(step["started_at"], None) or 0))
    if step.get("error"):
        parts.append(word(step["error"].get("message")))
    return ", ".join(parts)


def _after(item: Item) -> str:
    seconds = between(item.get("started_at"), item.get("ended_at")) if item.get("ended_at") else None
    return "" if seconds is None else f" after {duration(seconds)}"


class _Elapsed(ProgressColumn):
    """The step's own time, also when watching began in the middle of it."""

    max_refresh = 0.2

    def render(self, task: Task) -> Text:
        step = task.fields["step"]
        seconds = between(step.get("started_at"), step.get("ended_at"))
        return Text("" if seconds is None else duration(seconds), style="dim", justify="right")


class Bars:
    """Redraws in place; lines that are said stay above the bars."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[int, Any] = {}
        self._progress = Progress(
            TextColumn("{task.fields[glyph]}", table_column=Column(no_wrap=True)),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16),
            TextColumn(
                "{task.fields[amount]}", style="dim", justify="right", markup=False, table_column=Column(no_wrap=True)
            ),
            TextColumn("{task.fields[attempt]}", style="dim", markup=False, table_column=Column(no_wrap=True)),
            _Elapsed(table_column=Column(no_wrap=True)),
            console=console,
            refresh_per_second=8,
        )
        self._waiting_for: str | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()

    def show(self, operation: Item) -> None:
        for number, step in enumerate(operation.get("steps") or [], start=1):
            if number not in self._rows:
                self._rows[number] = self._progress.add_task("", total=None, **_row(step))
            total, done = _extent(step)
            # A step that has not begun shows an empty bar; one of unknown length shows a moving one.
            self._progress.update(
                self._rows[number], description=word(step.get("task")), total=total, completed=done, **_row(step)
            )
        waiting_for = operation.get("waiting_for")
        if waiting_for and waiting_for != self._waiting_for:
            self.say(f"waiting for: {word(waiting_for)}")
        self._waiting_for = waiting_for

    def say(self, text: str) -> None:
        self._progress.console.print(Text(text, style="yellow"), soft_wrap=True)


def _row(step: Item) -> Item:
    state = word(step.get("state"))
    attempt = step.get("attempt") or 0
    return {
        "step": step,
        "glyph": f"[{state_style(state)}]{_GLYPHS.get(state, '·')}[/]",
        "amount": amount(step["progress"]) if step.get("progress") else "" if state == "done" else state,
        "attempt": f"attempt {attempt}" if attempt and step.get("started_at") else "",
    }


def _extent(step: Item) -> tuple[float | None, float]:
    """Total and done for the bar."""
    state, progress = step.get("state"), step.get("progress") or {}
    if state == "done":
        return 1, 1
    total, done = progress.get("total"), progress.get("done") or 0
    if total:
        return total, done
    return (None, 0) if state in {"running", "undoing"} else (1, 0)
