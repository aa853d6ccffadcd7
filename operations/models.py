"""The record of everything in motion: operations, what they hold, their steps, and what happened."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.functional import cached_property

from core.rows import Row
from operations.querysets import OperationQuerySet
from operations.states import Hold, OperationState, StepState


class Operation(Row):
    """One doing of a verb. `ending` is set while undo runs: the state it will end in."""

    PREFIX = "op"

    account = models.ForeignKey("accounts.Account", null=True, on_delete=models.PROTECT, related_name="+")
    verb = models.CharField(max_length=64)  # "instance.launch"
    subject_kind = models.CharField(max_length=32)
    subject_uid = models.CharField(max_length=255)
    began_in = models.CharField(max_length=16, blank=True)  # the state of its subject; "": it superseded another
    state = models.CharField(max_length=16, choices=OperationState, default=OperationState.QUEUED)
    ending = models.CharField(max_length=16, choices=OperationState, blank=True)
    params = models.JSONField(default=dict)
    requested_by = models.CharField(max_length=255)
    request_id = models.CharField(max_length=64, blank=True)  # of the HTTP request that began it; "" for the system
    cancel_reason = models.CharField(max_length=255, blank=True)  # not empty: stop at the next safe point
    superseded_by = models.CharField(max_length=255, blank=True)
    resumes = models.CharField(max_length=255, blank=True)  # the operation that it goes on with
    error = models.JSONField(null=True)
    undone = models.JSONField(default=list)  # sentences
    held = models.JSONField(default=list)  # sentences
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    tallied = models.BooleanField(default=False)  # its end and its steps are part of the tallies

    objects = OperationQuerySet.as_manager()

    class Meta(Row.Meta):
        indexes = [
            *Row.Meta.indexes,
            models.Index(fields=["account", "-created_at", "-id"], name="operation_account_newest"),
            models.Index(fields=["subject_uid", "-created_at", "-id"], name="operation_subject_newest"),
            models.Index(fields=["ended_at"], name="operation_open", condition=Q(ended_at=None)),
            models.Index(fields=["id"], name="operation_untallied", condition=Q(ended_at__isnull=False, tallied=False)),
        ]

    @cached_property
    def steps_in_order(self) -> list[Step]:
        """The first one first; read once."""
        return sorted(self.steps.all(), key=lambda step: step.position)


class OperationSubject(models.Model):
    """The lock is a row: one open operation per subject, and one that waits to supersede it."""

    operation = models.ForeignKey(Operation, on_delete=models.CASCADE, related_name="subjects")
    kind = models.CharField(max_length=32)
    uid = models.CharField(max_length=255)
    hold = models.CharField(max_length=16, choices=Hold)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["uid"], condition=Q(hold=Hold.OPEN), name="one_open_operation"),
            models.UniqueConstraint(fields=["uid"], condition=Q(hold=Hold.WAITING), name="one_waiting_operation"),
        ]

    def __str__(self) -> str:
        return f"{self.uid} {self.hold} by {self.operation.uid}"


class Step(models.Model):
    """One task on one node. Claimed by `attempt`; `lease_until` is the proof that its worker lives.

    No index mentions a column that changes with every step but one small one: updates stay heap-only.
    """

    operation = models.ForeignKey(Operation, on_delete=models.CASCADE, related_name="steps")
    position = models.PositiveSmallIntegerField()
    task = models.CharField(max_length=64)  # "volumes.fetch_image"
    node = models.CharField(max_length=255, blank=True)  # hn-…; "" for the control lane
    lane = models.CharField(max_length=16)
    state = models.CharField(max_length=16, choices=StepState, default=StepState.BLOCKED)
    attempt = models.PositiveIntegerField(default=1)
    worker = models.CharField(max_length=255, blank=True)  # who has claimed this attempt
    params = models.JSONField(default=dict)
    moves = models.JSONField(default=list)  # [[kind, uid, moving state], …] when the step begins
    settles = models.JSONField(default=list)  # [[kind, uid, settled state], …] when the step is done
    idle_timeout_s = models.PositiveIntegerField(null=True)  # longest time without progress
    deadline_s = models.PositiveIntegerField(null=True)  # longest time of one attempt
    retries_left = models.PositiveSmallIntegerField(default=0)
    losses = models.PositiveSmallIntegerField(default=0)  # attempts whose worker vanished
    claimed_at = models.DateTimeField(null=True)  # when this attempt began
    lease_until = models.DateTimeField(null=True)
    queued_at = models.DateTimeField(null=True)
    not_before = models.DateTimeField(null=True)
    rung_at = models.DateTimeField(null=True)
    rings = models.PositiveIntegerField(default=0)
    progress_done = models.BigIntegerField(null=True)
    progress_total = models.BigIntegerField(null=True)
    progress_unit = models.CharField(max_length=16, blank=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    done_in = models.CharField(max_length=255, blank=True)  # the earlier operation whose whole result this one reuses
    attempts = models.JSONField(default=list)
    commands = models.JSONField(default=list)
    result = models.JSONField(default=dict)
    error = models.JSONField(null=True)
    log = models.TextField(blank=True)  # the node's lines, see step_log

    class Meta:
        ordering = ["operation_id", "position"]
        constraints = [
            models.UniqueConstraint(fields=["operation", "position"], name="one_step_per_position"),
        ]
        indexes = [
            models.Index(fields=["node", "lane"], name="step_in_motion", condition=Q(ended_at=None)),
        ]

    def __str__(self) -> str:
        return f"{self.task} ({self.state})"

    @property
    def was_done(self) -> bool:
        """Had its work come to its end, whatever has become of it since?"""
        return bool(self.done_in) or any(past["outcome"] == "done" for past in self.attempts)


class Event(models.Model):
    """What happened, kept by names and uids only: an event outlives its subject."""

    created_at = models.DateTimeField(db_default=Now())
    account = models.ForeignKey(
        "accounts.Account", null=True, on_delete=models.PROTECT, related_name="+", db_constraint=False
    )
    subject_kind = models.CharField(max_length=32)
    subject_uid = models.CharField(max_length=255)
    operation_uid = models.CharField(max_length=255, blank=True)
    name = models.CharField(max_length=96)  # "instance.start.done"
    message = models.TextField()

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["subject_uid", "-id"], name="event_subject_newest"),
            models.Index(fields=["operation_uid", "-id"], name="event_operation_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


class LaneCanary(models.Model):
    """The last bell that was sent through a lane only to come back; one row per lane."""

    node = models.CharField(max_length=255, blank=True)  # hn-…; "" for the control lane
    lane = models.CharField(max_length=16)
    number = models.PositiveBigIntegerField(default=0)  # of the last one sent; 0: none yet
    sent_at = models.DateTimeField(null=True)
    waits_since = models.DateTimeField(null=True)  # when the first one was sent that nobody has answered
    heard_at = models.DateTimeField(null=True)  # when one was answered last
    round_trip = models.DurationField(null=True)  # of that one: from before the bell to its answer in the row

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["node", "lane"], name="one_canary_per_lane"),
        ]

    def __str__(self) -> str:
        return f"canary {self.number} of the lane {self.lane} {self.node}".rstrip()


class Tally(models.Model):
    """A count that only grows, kept as rows so that it outlives every process; `le` bounds a bucket of a histogram."""

    metric = models.CharField(max_length=32)
    first = models.CharField(max_length=96, blank=True)  # what the labels mean is known to who counts
    second = models.CharField(max_length=255, blank=True)
    le = models.FloatField(default=float("inf"))  # not cumulated
    count = models.PositiveBigIntegerField(default=0)
    total = models.FloatField(default=0)  # sum of what was observed

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["metric", "first", "second", "le"], name="one_tally_per_labels"),
        ]

    def __str__(self) -> str:
        return f"{self.metric} {self.first} {self.second}: {self.count}"
