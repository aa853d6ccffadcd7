"""The story of one operation: what was done where, what went wrong, what is left, and what to do next."""

from __future__ import annotations

import json
import shlex
from typing import Any

from rich.text import Text

from cli.render.page import Page
from cli.render.units import amount, between, clock, duration, full_time, moment, size
from cli.render.words import state_style, word

Item = dict[str, Any]

GLYPHS = {"done": "✔", "failed": "✘", "running": "▶", "undoing": "↶", "undone": "↶", "cancelled": "⊘"}
ENDED = {"done", "failed", "cancelled"}


def story(operation: Item, width: int, subject: Item | None = None) -> list[Text]:
    """The page of an operation with its steps and events. `subject` as it is now adds what may be done with it."""
    page = Page(width)
    _head(page, operation)
    _fault(page, operation)
    steps = sorted(operation.get("steps") or [], key=lambda step: step.get("position") or 0)
    if steps:
        page.heading("Steps")
    for number, step in enumerate(steps, start=1):
        page.blank()
        write_step(page, number, step, operation)
    _sentences(page, "What was undone", operation.get("undone"), "nothing", operation)
    _sentences(page, "What is held", operation.get("held"), "nothing", operation)
    _events(page, operation)
    _next(page, operation, subject)
    return page.lines


def headline(operation: Item) -> str:
    """ "failed in step 2 of 4, volumes.build_volume on hn-demo0001": the state in one line."""
    state = word(operation.get("state"))
    steps = operation.get("steps") or []
    wanted = {"failed": {"failed"}, "running": {"running", "undoing"}}.get(state, set())
    for number, step in enumerate(steps, start=1):
        if step.get("state") in wanted:
            node = f" on {word(step['node'])}" if step.get("node") else ""
            return f"{state} in step {number} of {len(steps)}, {word(step.get('task'))}{node}"
    return f"{state} in {len(steps)} steps" if state == "done" and len(steps) > 1 else state


def _head(page: Page, operation: Item) -> None:
    subject = operation.get("subject") or {}
    page.line((f"{word(operation.get('id'))}  {word(operation.get('verb'))}", "bold"), f"  {word(subject.get('id'))}")
    page.line((headline(operation), state_style(operation.get("state"))))
    page.blank()
    asked, began, ended = (operation.get(key) for key in ("created_at", "started_at", "ended_at"))
    page.field("asked by", word(operation.get("requested_by")))
    if operation.get("request_id"):
        page.field("request", word(operation["request_id"]))
    page.field("asked", full_time(asked))
    if began:
        waited = between(asked, began)
        page.field("began", clock(began, day_of=asked) + (f", {duration(waited)} later" if waited is not None else ""))
    if ended:
        page.field("ended", f"{clock(ended, day_of=asked)}, after {duration(between(began or asked, ended) or 0)}")
    elif began:
        page.field("so far", duration(between(began, None) or 0))
    if operation.get("waiting_for"):
        page.field("waiting for", word(operation["waiting_for"]), style="yellow")
    if operation.get("resumes"):
        page.field("resumes", word(operation["resumes"]))
    moved = [f"{word(one.get('kind'))} {word(one.get('id'))}" for one in operation.get("subjects") or [subject]]
    page.field("moves", ", ".join(moved))


def _fault(page: Page, operation: Item) -> None:
    error = operation.get("error")
    if not error:
        return
    page.heading("What went wrong")
    page.text(word(error.get("message")), indent=2, style="bold red")
    page.field("class", word(error.get("class")))
    if error.get("step") is not None:
        page.field("step", _step_name(error["step"], operation))
    page.field("in the code", word(error.get("place")))
    if error.get("advice"):
        page.field("what helps", word(error["advice"]))


def _step_name(step: Any, operation: Item) -> str:
    """A step is named by its position or its task."""
    for number, candidate in enumerate(operation.get("steps") or [], start=1):
        if step in (candidate.get("position"), candidate.get("task")):
            return f"{number}, {word(candidate.get('task'))}"
    return word(step)


def write_step_title(page: Page, number: int, step: Item) -> None:
    """One line: number, task, state and time."""
    state = word(step.get("state"))
    seconds = between(step.get("started_at"), step.get("ended_at"))
    spent = "" if seconds is None else f" {'after' if step.get('ended_at') else 'for'} {duration(seconds)}"
    glyph = GLYPHS.get(state, "·")
    page.line(
        f"{number:>2} ",
        (glyph, state_style(state)),
        " ",
        (word(step.get("task")), "bold"),
        "  ",
        (state + spent, state_style(state)),
    )


def write_step(page: Page, number: int, step: Item, operation: Item) -> None:
    """A step with everything that is known of it: attempts, commands, the lines of its node, results, fault."""
    write_step_title(page, number, step)
    seconds = between(step.get("started_at"), step.get("ended_at"))
    day = operation.get("created_at")
    where = f"{step['node']}, " if step.get("node") else ""
    page.text(f"{where}lane {word(step.get('lane'))}{_span(step, day)}", indent=5)
    if step.get("done_in"):
        page.text(f"done in {word(step['done_in'])}", indent=5)
    if step.get("progress"):
        page.text(_speed(step["progress"], step, seconds), indent=5)
    for attempt in step.get("attempts") or []:
        _attempt(page, attempt, day)
    for command in step.get("commands") or []:
        _command(page, command)
    _log(page, step.get("log") or [], day)
    for key, value in (step.get("result") or {}).items():
        name, text = _result(key, value)
        page.text(f"{name}: {text}", indent=5, hang=2)
    error = step.get("error")
    if error:
        page.text(f"{word(error.get('class'))}: {word(error.get('message'))}", indent=5, hang=2, style="red")
        # Place and advice of the fault that ended the operation stand at the top of the page.
        if error.get("message") != (operation.get("error") or {}).get("message"):
            page.text(f"at {word(error.get('place'))}", indent=7)
            if error.get("advice"):
                page.text(f"what helps: {word(error['advice'])}", indent=7, hang=2)


def _span(item: Item, day: str | None) -> str:
    if not item.get("started_at"):
        return ", not begun"
    end = f" to {clock(item['ended_at'], day_of=day)}" if item.get("ended_at") else ""
    return f", {'' if end else 'since '}{clock(item['started_at'], day_of=day)}{end}"


def _speed(progress: Item, step: Item, seconds: float | None) -> str:
    text = amount(progress)
    if progress.get("unit") != "bytes" or word(step.get("state")) in {"undoing", "undone"}:
        return text  # to undo moves no bytes
    # Every attempt copies anew: the rate is that of the last one.
    attempts = step.get("attempts") or []
    if attempts:
        seconds = between(attempts[-1].get("started_at"), attempts[-1].get("ended_at"))
    if not seconds or seconds <= 0:
        return text
    return f"{text} in {duration(seconds)}, {size((progress.get('done') or 0) / seconds)}/s"


def _attempt(page: Page, attempt: Item, day: str | None) -> None:
    outcome = word(attempt.get("outcome"))
    worker = f", worker {word(attempt['worker'])}" if attempt.get("worker") else ""
    took = _took(attempt.get("started_at"), attempt.get("ended_at"))
    text = f"attempt {word(attempt.get('number'))} {outcome}{_span(attempt, day)}{took}{worker}"
    page.text(text, indent=5, hang=2, style=state_style(outcome) if outcome in {"failed", "lost"} else "")
    if attempt.get("error"):
        page.text(word(attempt["error"]), indent=7)


def _took(start: str | None, end: str | None) -> str:
    seconds = between(start, end) if end else None
    return "" if seconds is None else f", {duration(seconds)}"


def _command(page: Page, command: Item) -> None:
    argv = command.get("argv") or []
    page.text(f"$ {shlex.join(map(str, argv))}", indent=5, hang=4, style="cyan")
    code = command.get("exit_code")
    page.text("did not end" if code is None else f"exit code {code}", indent=7, style="" if code == 0 else "red")
    if command.get("output_tail"):
        page.verbatim(command["output_tail"], indent=7)


def _log(page: Page, lines: list[str], day: str | None) -> None:
    """What the node logged: "<time> attempt <n> <level> <words>", shown with the local time."""
    for line in lines:
        at, _, rest = line.partition(" ")
        shown = clock(at, day_of=day, milliseconds=True) if moment(at) else at
        style = "" if " info " in rest[:24] else "yellow"
        page.text(f"│ {shown} {rest.replace(' info ', ' ', 1)}", indent=5, hang=4, style=style)


def _result(key: str, value: Any) -> tuple[str, str]:
    if key.endswith("_bytes") and isinstance(value, int | float):
        return key.removesuffix("_bytes"), size(value)
    return key, json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else word(value)


def _sentences(page: Page, title: str, sentences: list[str] | None, none: str, operation: Item) -> None:
    """After a success both are beside the point, unless there is something to say."""
    if not sentences and operation.get("state") not in {"failed", "cancelled"}:
        return
    page.heading(title)
    for sentence in sentences or [none]:
        page.text(f"- {word(sentence)}", indent=2, hang=2)


def _events(page: Page, operation: Item) -> None:
    events = operation.get("events") or []
    if not events:
        return
    page.heading("Events")
    names = max(len(word(event.get("name"))) for event in events)
    for event in sorted(events, key=lambda event: event.get("at") or ""):
        at = clock(event.get("at"), day_of=operation.get("created_at"), milliseconds=True)
        lead = f"{at}  {word(event.get('name')):<{names}}"
        message = word(event.get("message"))
        if len(lead) + 4 + len(message) <= page.width:
            page.line(f"{lead}  {'' if message == '-' else message}".rstrip(), indent=2)
        else:
            page.line(lead.rstrip(), indent=2)
            page.text(message, indent=2 + len(at) + 2)


def _next(page: Page, operation: Item, subject: Item | None) -> None:
    page.heading("What to do next")
    kind, uid = (word((operation.get("subject") or {}).get(key)) for key in ("kind", "id"))
    state = operation.get("state")
    if state not in ENDED:
        page.text(f"vdc operation watch {operation.get('id')}", indent=2)
        if "cancel" in (operation.get("allowed_verbs") or []):
            page.text(f"vdc operation cancel {operation.get('id')}", indent=2)
        return
    if state == "done":
        page.text("Nothing: it is done.", indent=2)
    elif (operation.get("error") or {}).get("advice"):
        page.text(word(operation["error"]["advice"]), indent=2)
    if subject is not None:
        verbs = ", ".join(map(word, subject.get("allowed_verbs") or [])) or "nothing"
        page.text(f"{uid} is now in state {word(subject.get('state'))}; allowed: {verbs}", indent=2)
    if kind in {"instance", "image", "volume"}:
        page.text(f"vdc {kind} show {uid}", indent=2)
