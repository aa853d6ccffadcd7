"""The automata of operations and steps.

operation   waiting ──► queued ──► running ──► done | failed | cancelled
            (behind the one that it supersedes)

step        blocked ──► queued ──► running ──► done ──► undoing ──► undone
               │          ▲ │         │
               │          └─┼─────────┤  tried again: same step, next attempt
               │            │         └──► failed
               └────────────┴──► cancelled
"""

from django.db import models


class OperationState(models.TextChoices):
    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepState(models.TextChoices):
    BLOCKED = "blocked"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNDOING = "undoing"
    UNDONE = "undone"


class Hold(models.TextChoices):
    """How an operation holds a subject: at most one holds it, at most one waits behind."""

    OPEN = "open"
    WAITING = "waiting"
    CLOSED = "closed"


OPEN_OPERATION = (OperationState.WAITING, OperationState.QUEUED, OperationState.RUNNING)
CLAIMED_STEP = (StepState.RUNNING, StepState.UNDOING)
