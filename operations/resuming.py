"""Go on where an operation stopped: which one it was, and what of it is whole and need not be done again."""

from __future__ import annotations

from typing import Any

from operations import register
from operations.models import Operation, Step
from operations.states import StepState

COPIED = ("result", "claimed_at", "started_at", "ended_at", "progress_done", "progress_total", "progress_unit")


def stopped_operation(row: Any) -> Operation | None:
    """The operation that left `row` in error, if one did."""
    uid = (row.error or {}).get("operation")
    return Operation.objects.filter(uid=uid).first() if uid else None


def carry_over(operation: Operation, steps: list[Step]) -> list[Step]:
    """Mark the leading `steps` that are done and whole in the resumed operation as done there; returns those.

    Where its steps are pruned, or planned otherwise by now, all is done again: each finds what is there.
    """
    if not operation.resumes:
        return []
    done = Step.objects.filter(operation__uid=operation.resumes, state=StepState.DONE)
    by_position = {step.position: step for step in done}
    carried = []
    for step in steps:
        past = by_position.get(step.position)
        if past is None or not register.tasks[step.task].whole or not _is_same(step, past):
            break
        step.state = StepState.DONE
        step.done_in = past.done_in or operation.resumes
        for name in COPIED:
            setattr(step, name, getattr(past, name))
        carried.append(step)
    return carried


def _is_same(step: Step, past: Step) -> bool:
    return (step.task, step.node, step.params) == (past.task, past.node, past.params)
