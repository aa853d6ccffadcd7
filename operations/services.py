"""What changes operations because someone asked."""

from __future__ import annotations

from core.errors import Conflict
from operations import engine
from operations.models import Operation


def cancel_operation(operation: Operation, *, requested_by: str) -> Operation:
    """Ask an open operation to stop at its next safe point and to undo what it did. Returns it as it is then.

    Asking again changes nothing. Raises Conflict "operation_ended".
    """
    is_open = engine.cancel(operation, reason=f"by {requested_by}")
    operation.refresh_from_db()
    if not is_open:
        raise Conflict(
            f"{operation.uid} ended as {operation.state} at {operation.ended_at:%Y-%m-%d %H:%M:%S} UTC; "
            "there is nothing to cancel.",
            code="operation_ended",
            state=operation.state,
        )
    return operation
