"""The page of `vdc explain`: a verdict, then everything that it rests on, then what can be done."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from cli.render.page import Page
from cli.render.story import ENDED, GLYPHS, write_step, write_step_title
from cli.render.units import clock, duration, full_time
from cli.render.words import state_style, word

Item = dict[str, Any]


def explanation(document: Item, width: int) -> list[Text]:
    """The page of any row. Operations that went well are told in a line for each step, the others in full."""
    page = Page(width)
    page.text(word(document.get("verdict")), style="bold")
    _asked(page, document)
    _seen(page, document.get("seen") or [])
    operations = document.get("operations") or []
    if operations:
        page.heading("What was done, newest first")
    for operation in operations:
        page.blank()
        _operation(page, operation)
    _beside(page, document.get("events") or [])
    if document.get("held"):
        page.heading("What is held now")
        for sentence in document["held"]:
            page.text(f"- {word(sentence)}", indent=2, hang=2)
    _next(page, document)
    return page.lines


def _asked(page: Page, document: Item) -> None:
    page.heading("What is asked")
    facts = {"state": document.get("state"), **(document.get("asked") or {})}
    column = max(12, *(len(name) + 1 for name in facts))
    for name, value in facts.items():
        if value is not None:
            style = state_style(value) if name == "state" else ""
            page.field(name, word(value), column=column, style=style)


def _seen(page: Page, sights: list[Item]) -> None:
    if not sights:
        return
    page.heading("What is seen")
    for sight in sights:
        age_s = sight.get("age_s")
        when = "never" if age_s is None else f"{duration(age_s)} ago, at {clock(sight.get('at'))}"
        page.text(f"- {word(sight.get('of'))} {word(sight.get('what'))}: {when}", indent=2, hang=2)


def _operation(page: Page, operation: Item) -> None:
    state = word(operation.get("state"))
    page.line(
        (GLYPHS.get(state, "·"), state_style(state)),
        " ",
        (f"{word(operation.get('id'))}  {word(operation.get('verb'))}", "bold"),
        "  ",
        (state, state_style(state)),
    )
    request = f", request {operation['request_id']}" if operation.get("request_id") else ""
    page.text(f"asked by {word(operation.get('requested_by'))}{request}", indent=2, hang=2)
    page.text(full_time(operation.get("created_at")), indent=2)
    for name in ("waiting_for", "cancel_reason", "superseded_by", "resumes"):
        if operation.get(name) and not (name == "superseded_by" and operation.get("cancel_reason")):
            page.text(f"{_NAMES[name]}: {word(operation[name])}", indent=2, hang=2, style="yellow")
    for number, step in enumerate(operation.get("steps") or [], start=1):
        if state == "done" or step.get("state") == "blocked" or not (step.get("started_at") or step.get("error")):
            write_step_title(page, number, step)
        else:
            write_step(page, number, step, operation)
    if state in ENDED - {"done"}:
        for title, key in (("undone", "undone"), ("left behind then", "held")):
            page.text(f"{title}: {'; '.join(map(word, operation.get(key) or [])) or 'nothing'}", indent=2, hang=2)


_NAMES = {
    "waiting_for": "waits for",
    "cancel_reason": "cancelled",
    "superseded_by": "superseded by",
    "resumes": "goes on with",
}


def _beside(page: Page, events: list[Item]) -> None:
    """What happened to it outside of these operations, newest first."""
    if not events:
        return
    page.heading("What else happened")
    for event in events:
        page.text(f"- {full_time(event.get('at'))}: {word(event.get('message'))}", indent=2, hang=2)


def _next(page: Page, document: Item) -> None:
    page.heading("What can be done")
    steps = document.get("next") or []
    for step in steps:
        page.text(f"- {_command(step, document)}{word(step.get('says'))}", indent=2, hang=2)
    if not steps:
        page.text("Nothing is left to do.", indent=2)


def _command(step: Item, document: Item) -> str:
    """ "vdc instance retry i-…: "; "" for advice that is no command. Strays are named with their node."""
    verb, on = step.get("verb"), word(step.get("on"))
    if verb and on.startswith("st-"):
        node = word((document.get("asked") or {}).get("node")).partition(" ")[0]
        return f"vdc node {word(verb)} {node} {on}{' --account ACCOUNT' if verb == 'adopt' else ''}: "
    noun = {"op": "operation", "i": "instance", "vol": "volume", "wmi": "image"}.get(on.partition("-")[0])
    return f"vdc {noun} {word(verb)} {on}: " if verb and noun else ""
