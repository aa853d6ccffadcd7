"""A kind of step: its work on a node, how rows change when it is done, and how it is undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import shared_task

from operations import register

if TYPE_CHECKING:
    from operations.models import Operation, Step
    from operations.run import StepRun

Result = dict[str, Any]


class StepTask:
    """One named Celery task with the protocol claim → heartbeat → run → settle around it.

    `whole`: what it makes is kept when a later step fails, and undone only by cancel.
    The work may be run again at any time: it must find what is there already.
    """

    def __init__(self, name: str, work: Callable[[StepRun], Result | None], *, whole: bool) -> None:
        self.name = name
        self.work = work
        self.whole = whole
        self.on_settle: Callable[[StepRun, Result], None] | None = None
        self.undo: Callable[[StepRun], str] | None = None
        self.on_undone: Callable[[StepRun], None] | None = None
        self.evidence: Callable[[Operation, Step], str] | None = None

    def settles(self, write: Callable[[StepRun, Result], None]) -> Callable[[StepRun, Result], None]:
        """Decorator: rows that change in the very transaction in which the step becomes done."""
        self.on_settle = write
        return write

    def undoes(self, undo: Callable[[StepRun], str]) -> Callable[[StepRun], str]:
        """Decorator: unmake it, twice if need be; returns the sentence for the story."""
        self.undo = undo
        return undo

    def when_undone(self, write: Callable[[StepRun], None]) -> Callable[[StepRun], None]:
        """Decorator: rows that change in the very transaction in which the step becomes undone."""
        self.on_undone = write
        return write

    def proven_by(self, look: Callable[[Operation, Step], str]) -> Callable[[Operation, Step], str]:
        """Decorator: the sentence which proves, from rows that the node's observer wrote since the step began, that
        its goal is reached; "" when nothing does. A step that is settled so has no result to settle with."""
        self.evidence = look
        return look


def step_task(name: str, *, whole: bool = False) -> Callable[[Callable[[StepRun], Result | None]], StepTask]:
    """Make a function the step task `name` ("volumes.fetch_image")."""

    def decorate(work: Callable[[StepRun], Result | None]) -> StepTask:
        task = StepTask(name, work, whole=whole)
        register.tasks[name] = task

        @shared_task(name=name, ignore_result=True)
        def answer_bell(step_id: int, attempt: int) -> None:
            from operations.protocol import run_step  # the protocol needs the register of tasks

            run_step(step_id, attempt)

        return task

    return decorate
