"""What a verb does, where, and what its subjects are called meanwhile: plans of steps, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class Subject(Protocol):
    """A row that an operation can move. `KIND` is the noun: "instance", "volume" …"""

    KIND: str
    uid: str
    state: str


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """`retries`: how often a transient fault is tried again. `idle_timeout_s`: longest time without progress.

    One of `deadline_s` and `idle_timeout_s` is needed: nothing is in motion without an end. Raises ValueError.
    """

    task: str
    node: str
    lane: str
    params: dict[str, Any] = field(default_factory=dict)
    moves: list[list[str]] = field(default_factory=list)
    settles: list[list[str]] = field(default_factory=list)
    retries: int = 4
    idle_timeout_s: int | None = None
    deadline_s: int | None = None

    def __post_init__(self) -> None:
        if not (self.idle_timeout_s or self.deadline_s):
            raise ValueError(f"the step {self.task} has no deadline: give it deadline_s or idle_timeout_s")


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order; `also` are the subjects that move beside the main one and are locked with it."""

    steps: tuple[PlannedStep, ...]
    also: tuple[Subject, ...] = ()


def step(
    task: Any,
    *,
    node: str,
    lane: str,
    moves: Mapping[Any, str] | None = None,
    settles: Mapping[Any, str] | None = None,
    **rest: Any,
) -> PlannedStep:
    """A planned step of `task` (a step task); `moves` and `settles` map rows to states."""
    return PlannedStep(task=task.name, node=node, lane=lane, moves=_written(moves), settles=_written(settles), **rest)


def _written(states: Mapping[Any, str] | None) -> list[list[str]]:
    return [[row.KIND, row.uid, str(state)] for row, state in (states or {}).items()]
