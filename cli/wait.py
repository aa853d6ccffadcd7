"""Follows an operation to its end, also over a restart of the web process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console

from cli.errors import Away, LeftRunning, NotDone
from cli.render.progress import View, view_on
from cli.render.story import ENDED, headline
from cli.render.units import duration
from cli.render.words import word

if TYPE_CHECKING:
    from cli.client import Client  # brings httpx, which `--help` shall not wait for

PATIENCE_S = 300.0
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
LONGEST_AWAY_PAUSE_S = 5.0


def watch(client: Client, operation_id: str, console: Console) -> dict[str, Any]:
    """Show the operation on `console` until it has ended, and return it. Raises LeftRunning on Ctrl-C."""
    try:
        with view_on(console) as view:
            return follow(client, operation_id, view)
    except KeyboardInterrupt:
        raise LeftRunning(
            f"Stopped watching; {operation_id} goes on without you.\nWatch it again: vdc operation watch {operation_id}"
        ) from None


def follow(client: Client, operation_id: str, view: View, *, patience_s: float | None = None) -> dict[str, Any]:
    """Ask again and again until the operation has ended. A server that is away is waited for up to `patience_s`
    (5 minutes): losing sight of the work says nothing about the work."""
    patience_s = PATIENCE_S if patience_s is None else patience_s
    pause_s = SHORTEST_PAUSE_S
    away_since: float | None = None
    while True:
        try:
            operation = client.get_once(f"operations/{operation_id}")
        except Away as error:
            now = time.monotonic()
            if away_since is None:
                away_since = now
                view.say(
                    f"{error.reason}: waiting up to {duration(patience_s)} for it; {operation_id} goes on meanwhile"
                )
            left_s = patience_s - (now - away_since)
            if left_s <= 0:
                raise _lost_sight(error, operation_id, patience_s) from None
            time.sleep(min(error.retry_after_s or LONGEST_PAUSE_S, LONGEST_AWAY_PAUSE_S, left_s))
            continue
        if away_since is not None:
            view.say(f"the API answers again after {duration(time.monotonic() - away_since)}")
            away_since, pause_s = None, SHORTEST_PAUSE_S
        view.show(operation)
        if operation.get("state") in ENDED:
            return operation
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.3, LONGEST_PAUSE_S)


def insist_on_end(operation: dict[str, Any], state: str) -> None:
    """Raise NotDone with the reason and the way to the story, unless the operation has ended in `state`."""
    if operation.get("state") == state:
        return
    uid = operation.get("id")
    lines = [f"{uid} {word(operation.get('verb'))} {headline(operation)}"]
    error = operation.get("error")
    if error:
        lines[0] += f": {word(error.get('message'))}"
        if error.get("advice"):
            lines.append(f"What helps: {word(error['advice'])}")
    lines.append(f"The whole story: vdc operation show {uid}")
    raise NotDone("\n".join(lines))


def _lost_sight(error: Away, operation_id: str, patience_s: float) -> Away:
    return Away(
        f"{error}\nNo answer for {duration(patience_s)}; {operation_id} may well go on. "
        f"Once the API answers: vdc operation watch {operation_id}",
        reason=error.reason,
    )
