"""What all commands do: log in, list, show, and follow what they began."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.text import Text

from cli.commands.options import Output
from cli.errors import Refused
from cli.login import find_login
from cli.render.console import console_on, notice, page_width, print_json, print_lines
from cli.render.table import Column, table
from cli.render.words import operation_id, word
from cli.wait import insist_on_end, watch

if TYPE_CHECKING:
    from cli.client import Client

DEFAULT_LIMIT = 100


@contextmanager
def api() -> Iterator[Client]:
    """The API of the login. Raises WrongUse without one."""
    from cli.client import Client  # here, because httpx costs a tenth of a second which `--help` need not pay

    with Client(find_login(), notice=notice) as client:
        yield client


def show_list(path: str, columns: Sequence[Column], *, output: Output, limit: int, **query: Any) -> None:
    with api() as client:
        items, more = client.items(path, limit=limit, **query)
    show_items(items, columns, output=output, nothing="none yet")
    if more:
        notice(f"these are the newest {limit}; --limit 0 lists all")


def show_items(items: list[dict[str, Any]], columns: Sequence[Column], *, output: Output, nothing: str) -> None:
    """A list that is here already; `nothing` is said of an empty one."""
    if output is Output.JSON:
        print_json(items)
        return
    console = console_on(sys.stdout)
    lines, left_out = table(columns, items, width=console.width if console.is_terminal else None)
    print_lines(lines, console)
    if not items:
        notice(nothing)
    if left_out:
        notice(f"too narrow here for {', '.join(left_out)}; `-o json` has everything")


def show_one(path: str, sheet: Callable[[dict[str, Any], int], list[Text]], *, output: Output) -> None:
    with api() as client:
        item = client.get(path)
    if output is Output.JSON:
        print_json(item)
    else:
        console = console_on(sys.stdout)
        print_lines(sheet(item, page_width(console)), console)


def conclude(client: Client, path: str, subject: dict[str, Any], *, output: Output, wait: bool) -> None:
    """After a request that may have begun an operation: say so or, with `wait`, follow it to its end and print what
    became of the subject, which is found at `path`. Raises NotDone unless the operation is done."""
    operation = operation_id(subject)
    if wait and operation:
        notice(f"{word(subject.get('id'))}: begun as {operation}")
        insist_on_end(watch(client, operation, console_on(sys.stderr)), "done")
        try:
            subject = client.get(path)
        except Refused as error:
            if error.status != 404:
                raise
            # The work is done, and it was its purpose that nothing remains.
            subject = {**subject, "state": "gone", "operation": None}
    if output is Output.JSON:
        print_json(subject)
    else:
        print_lines([_sentence(subject)])


def _sentence(subject: dict[str, Any]) -> Text:
    text = f"{word(subject.get('id'))} is {word(subject.get('state'))}"
    if subject.get("addresses"):
        text += f" at {word(subject['addresses'])}"
    operation = operation_id(subject)
    if operation:
        text += f"; begun as {operation} (vdc operation watch {operation})"
    return Text(text)
