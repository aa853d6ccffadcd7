"""Words of the page that tells what an operation did: times, sizes, links and coloured states."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from typing import Any

from django import template

from core.admin_words import badge, link, linked
from core.units import duration, size
from operations.colours import OPERATION_COLOURS, STEP_COLOURS
from operations.models import Operation
from operations.register import explainers

register = template.Library()
register.filter("linked", linked)
register.filter("row_link", link)


@register.filter
def can_be_explained(uid: str | None) -> bool:
    """Whether a room knows how to explain the row of this id; operations always can be."""
    prefix = str(uid).partition("-")[0]
    return prefix == Operation.PREFIX or prefix in explainers


@register.filter
def operation_state(state: str) -> str:
    return badge(state, OPERATION_COLOURS)


@register.filter
def step_state(state: str) -> str:
    """Of steps, and of their attempts."""
    return badge(state, STEP_COLOURS)


def _moment(value: str | datetime) -> datetime:
    return (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(UTC)


@register.filter
def clock(value: str | datetime | None) -> str:
    """ "13:02:11.004", for rows of one story."""
    return f"{_moment(value):%H:%M:%S.%f}"[:-3] if value else "–"


@register.filter
def took(item: dict[str, Any]) -> str:
    """How long a step or an attempt took, or takes until now."""
    if not item.get("started_at"):
        return ""
    end = _moment(item["ended_at"]) if item.get("ended_at") else datetime.now(UTC)
    return duration((end - _moment(item["started_at"])).total_seconds())


@register.filter
def seconds(count: float) -> str:
    """ "3 m 02 s"."""
    return duration(count)


@register.filter
def amount(progress: dict[str, Any]) -> str:
    """ "1.2 GiB of 4.0 GiB"."""
    known = [count for count in (progress["done"], progress["total"]) if count is not None]
    if progress["unit"] == "bytes":
        return " of ".join(size(count) for count in known)
    return f"{' of '.join(str(count) for count in known)} {progress['unit']}".strip()


@register.filter
def percent(progress: dict[str, Any]) -> int | None:
    """0 to 100; None while nobody knows how much there is."""
    return min(100 * progress["done"] // progress["total"], 100) if progress["total"] else None


@register.filter
def command_line(argv: list[Any]) -> str:
    """As one would type it."""
    return shlex.join(str(word) for word in argv)


@register.filter
def facts(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What a step found out, as (name, words)."""
    return [_fact(name, value) for name, value in result.items() if value not in ("", None)]


def _fact(name: str, value: Any) -> tuple[str, str]:
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words, "yes" if value else "no"
    if name.endswith("_bytes") and isinstance(value, int):
        return words.removesuffix(" bytes"), size(value)
    return words, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
