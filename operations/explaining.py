"""From symptom to cause: the words of the rooms that know a row, and the one sentence that sums it all up.

A noun registers an `Explainer` under the prefix of its ids; the door (`operations.api.explain`) adds the operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from core.units import duration, size
from operations.states import OPEN_OPERATION, OperationState, StepState

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sight:
    """Something that was seen, and when; None: never."""

    of: str  # a public id
    what: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a noun's own room knows of a row.

    `asked` maps names to words, `held` are sentences on what it keeps now, `concerns` are ids of rows whose operations
    moved this one too, and `verdict` is the sentence for a row that nothing moves and nothing troubles.
    """

    asked: dict[str, str]
    seen: list[Sight] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    concerns: tuple[str, ...] = ()
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Explainer:
    """How the rows with one prefix are explained. `rows` are all of them; a tenant's are an OwnedQuerySet."""

    noun: str  # in sentences: "backup object"
    rows: Callable[[], QuerySet]
    facts: Callable[[Any], Facts]
    operators_only: bool = False


def verdict_on_operation(operation: Document) -> str:
    """One sentence on an operation, from its story."""
    name = f"{operation['id']} ({_verb(operation)} of {operation['subject']['id']})"
    state, steps = operation["state"], operation["steps"]
    if state in OPEN_OPERATION:
        return f"{name} {_open_words(operation)}."
    if state == OperationState.DONE:
        return f"{name} is done{_in_steps(steps)}."
    if state == OperationState.CANCELLED:
        return f"{name} was cancelled: {_closed(operation['cancel_reason'] or 'nobody said why')}"
    return f"{name} failed: {_cause(operation)}"


def verdict_on_row(uid: str, state: str, error: Document | None, operations: list[Document], facts: Facts) -> str:
    """One sentence on a row: what moves it, else what is wrong with it, else how it is. `operations`: newest first."""
    moving = next((one for one in operations if one["state"] in OPEN_OPERATION and one["state"] != "waiting"), None)
    if moving is not None:
        return f"{uid} is {state}: {moving['id']} ({_verb(moving)}) {_open_words(moving)}."
    if error:
        story = next((one for one in operations if one["id"] == error.get("operation")), None)
        return f"{uid} is {'in error' if state == 'error' else state}: {_cause(story) if story else _told(error)}"
    latest = next((one for one in operations if one["subject"]["id"] == uid), None)
    if latest is not None and latest["state"] == OperationState.FAILED:
        return f"{uid} is {state}; what was asked last, {_verb(latest)}, failed: {_cause(latest)}"
    return facts.verdict or f"{uid} is {state}."


def _verb(operation: Document) -> str:
    return operation["verb"].partition(".")[2]


def _open_words(operation: Document) -> str:
    if operation["waiting_for"]:
        return f"waits for {operation['waiting_for']}"
    steps = operation["steps"]
    at_it = next((step for step in steps if step["state"] in (StepState.RUNNING, StepState.UNDOING)), None)
    if at_it is None:
        return "is about to begin" if operation["started_at"] is None else "is between two steps"
    doing = "undoes" if at_it["state"] == StepState.UNDOING else "works on"
    progress = at_it["progress"]
    far = ""
    if progress and progress["unit"] == "bytes":
        known = [size(count) for count in (progress["done"], progress["total"]) if count is not None]
        far = f"; {' of '.join(known)} so far"
    return f"{doing} step {at_it['position']} of {len(steps)}, {at_it['task']}{_on(at_it)}{far}"


def _cause(operation: Document) -> str:
    error = operation["error"] or {}
    failed = next((step for step in operation["steps"] if step["task"] == error.get("step") and step["error"]), None)
    where = f"{failed['task']} failed{_on(failed)}: " if failed else ""
    return where + _told(error)


def _told(error: Document) -> str:
    """What went wrong, and what helps."""
    sentence = _closed(error.get("message") or "no reason was given")
    return f"{sentence} Next: {_closed(error['advice'])}" if error.get("advice") else sentence


def _on(step: Document) -> str:
    return f" on {step['node']}" if step["node"] else ""


def _in_steps(steps: list[Document]) -> str:
    if not steps:
        return ""
    begun = min((step["started_at"] for step in steps if step["started_at"]), default=None)
    ended = max((step["ended_at"] for step in steps if step["ended_at"]), default=None)
    took = f" after {_between(begun, ended)}" if begun and ended else ""
    return f"{took}, in {len(steps)} step{'s' if len(steps) > 1 else ''}"


def _between(begun: str, ended: str) -> str:
    return duration((datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds())


def _closed(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."
