"""In which colour the admin shows a state: unfold's words info, success, warning, danger; the others stay grey."""

from __future__ import annotations

from typing import Any

from operations.states import OperationState, StepState

OPERATION_COLOURS = {
    OperationState.WAITING.value: "warning",
    OperationState.QUEUED.value: "info",
    OperationState.RUNNING.value: "info",
    OperationState.DONE.value: "success",
    OperationState.FAILED.value: "danger",
    OperationState.CANCELLED.value: "warning",
}

STEP_COLOURS = {
    StepState.QUEUED.value: "info",
    StepState.RUNNING.value: "info",
    StepState.DONE.value: "success",
    StepState.FAILED.value: "danger",
    StepState.CANCELLED.value: "warning",
    StepState.UNDOING.value: "warning",
    "lost": "danger",  # what attempts end as, beside the states
    "retried": "warning",
}

_GOOD = ("running", "available", "attached")


def colours_of(noun: Any) -> dict[str, str]:
    """Of the states of a noun: moving ones, good settled ones, and error."""
    return {
        **{state.value: "info" for state in noun.MOVING},
        **dict.fromkeys(_GOOD, "success"),
        "error": "danger",
    }
