"""`vdc operation`: what was asked for, how it goes, and the story of how it went."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from cli.commands.options import LimitOption, OperationId, Output, OutputOption, WaitOption, checked_id
from cli.commands.session import DEFAULT_LIMIT, api, show_list
from cli.errors import CliError
from cli.render.columns import OPERATIONS
from cli.render.console import console_on, page_width, print_json, print_lines
from cli.render.story import ENDED, story
from cli.render.words import word
from cli.wait import insist_on_end, watch

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(help="Operations: what was asked for, how it goes, how it went.", no_args_is_help=True)

_COLLECTIONS = {"instance": "instances", "image": "images", "volume": "volumes"}


@app.command("list")
def list_(
    subject: Annotated[
        str | None, typer.Option(metavar="ID", help="Only those that move this.", callback=checked_id)
    ] = None,
    state: Annotated[
        str | None, typer.Option(help="queued, waiting, running, done, failed or cancelled.", callback=checked_id)
    ] = None,
    limit: LimitOption = DEFAULT_LIMIT,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the operations, newest first.

    \b
    vdc operation list --state failed
    vdc operation list --subject i-7d2kq9xw
    """
    show_list("operations", OPERATIONS, output=output, limit=limit, subject=subject, state=state)


@app.command()
def show(operation: OperationId, output: OutputOption = Output.TABLE) -> None:
    """Tell the story of an operation.

    Each step with times, node, attempts and commands, what went wrong, what was undone, what is held, and what to do
    next.

    \b
    vdc operation show op-7k2m9x4q
    """
    with api() as client:
        told = client.get(f"operations/{operation}")
        subject = _subject_now(client, told) if output is Output.TABLE else None
    if output is Output.JSON:
        print_json(told)
    else:
        console = console_on(sys.stdout)
        print_lines(story(told, page_width(console), subject), console)


@app.command("watch")
def watch_(operation: OperationId) -> None:
    """Follow an operation until it has ended.

    Exit code 0 if it is done, else 1. Survives a restart of the API. Ctrl-C stops the watching, not the operation.

    \b
    vdc operation watch op-7k2m9x4q
    """
    with api() as client:
        ended = watch(client, operation, console_on(sys.stdout))
    insist_on_end(ended, "done")


@app.command()
def cancel(operation: OperationId, wait: WaitOption = False, output: OutputOption = Output.TABLE) -> None:
    """Stop an operation at its next safe point, and undo what it did.

    Disks that it made move to the trash. With --wait the exit code is 0 once it has ended as cancelled, else 1: it
    may have been done before it heard of it.

    \b
    vdc operation cancel op-7k2m9x4q --wait
    """
    with api() as client:
        told = client.post(f"operations/{operation}/cancel", {})
        if wait:
            told = watch(client, operation, console_on(sys.stderr))
    if output is Output.JSON:
        print_json(told)
    else:
        print_lines([_cancelled(told)])
    if wait:
        insist_on_end(told, "cancelled")


def _cancelled(operation: dict[str, Any]) -> Text:
    uid, state = word(operation.get("id")), word(operation.get("state"))
    ended = state in ENDED
    more = f" (vdc operation show {uid})" if ended else f" and was asked to stop (vdc operation watch {uid})"
    return Text(f"{uid} is {state}{more}")


def _subject_now(client: Client, operation: dict[str, Any]) -> dict[str, Any] | None:
    """The subject of an operation that did not end well, as it is now; None if it cannot be had.

    It only adds to the story, which must not be lost for want of it.
    """
    subject = operation.get("subject") or {}
    collection = _COLLECTIONS.get(subject.get("kind", ""))
    if collection is None or operation.get("state") not in {"failed", "cancelled"}:
        return None
    try:
        return client.get(f"{collection}/{subject['id']}")
    except CliError:
        return None
