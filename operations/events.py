"""Leave a note of what happened: one row, in the transaction of the change that it tells of."""

from __future__ import annotations

from operations.models import Event, Operation


def note(
    kind: str, uid: str, name: str, message: str, *, account_id: int | None = None, operation_uid: str = ""
) -> None:
    """Record the event `name` ("instance.observed") about the subject `uid`."""
    Event.objects.create(
        account_id=account_id,
        subject_kind=kind,
        subject_uid=uid,
        operation_uid=operation_uid,
        name=name,
        message=message,
    )


def note_of(operation: Operation, name: str, message: str) -> None:
    """Record `<verb>.<name>` about the main subject of an operation."""
    note(
        operation.subject_kind,
        operation.subject_uid,
        f"{operation.verb}.{name}",
        message,
        account_id=operation.account_id,
        operation_uid=operation.uid,
    )
