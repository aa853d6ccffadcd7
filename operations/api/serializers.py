"""How operations are printed: a line in lists, the whole story alone."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils import timezone
from rest_framework import serializers

from core.api.serializers import RowSerializer
from operations import canary, register
from operations.models import Event, Operation, Step
from operations.states import OperationState, StepState


def moment(value: datetime | None) -> str | None:
    """ISO 8601 in UTC with a Z, as everywhere in the API."""
    return value and value.isoformat().replace("+00:00", "Z")


class OperationSerializer(RowSerializer):
    """Without steps and events: what lists and other nouns show."""

    subject = serializers.SerializerMethodField()
    waiting_for = serializers.SerializerMethodField()

    class Meta:
        model = Operation
        fields = [
            *RowSerializer.BASE_FIELDS,
            "verb",
            "state",
            "subject",
            "requested_by",
            "request_id",
            "started_at",
            "ended_at",
            "cancel_reason",
            "superseded_by",
            "resumes",
            "waiting_for",
            "error",
        ]

    def get_allowed_verbs(self, operation: Operation) -> list[str]:
        return [] if operation.ended_at or operation.cancel_reason else ["cancel"]

    def get_subject(self, operation: Operation) -> dict[str, str]:
        return {"kind": operation.subject_kind, "id": operation.subject_uid}

    def get_waiting_for(self, operation: Operation) -> str | None:
        if operation.ended_at is not None:
            return None
        if operation.state == OperationState.WAITING:
            return "the operation that it supersedes, to stop at its next safe point"
        waiting = _waiting(operation)
        if waiting is None:
            return None
        if trouble := self._troubles().get(waiting.node):
            return trouble
        if waiting.worker:
            return None
        if waiting.not_before is not None and waiting.not_before > timezone.now():
            return f"the next attempt of {waiting.task}, at {moment(waiting.not_before)}"
        if trouble := self._lane_troubles().get((waiting.node, waiting.lane)):
            return trouble
        return f"a free worker of the lane {waiting.lane}" + (f" on node {waiting.node}" if waiting.node else "")

    def _troubles(self) -> dict[str, str]:
        """What is wrong with the nodes that all shown operations wait for, in one statement."""
        if "troubles" not in self.context:
            self.context["troubles"] = register.troubles_of(step.node for step in self._all_waiting())
        return self.context["troubles"]

    def _lane_troubles(self) -> dict[tuple[str, str], str]:
        """The same for their lanes."""
        if "lane_troubles" not in self.context:
            self.context["lane_troubles"] = canary.troubles({(step.node, step.lane) for step in self._all_waiting()})
        return self.context["lane_troubles"]

    def _all_waiting(self) -> list[Step]:
        shown = [self.instance] if self.parent is None else self.parent.instance
        return [step for operation in shown if (step := _waiting(operation))]


class StorySerializer(OperationSerializer):
    """Everything: the page that explains what happened."""

    subjects = serializers.SerializerMethodField()
    steps = serializers.SerializerMethodField()
    events = serializers.SerializerMethodField()

    class Meta(OperationSerializer.Meta):
        fields = [*OperationSerializer.Meta.fields, "subjects", "undone", "held", "steps", "events"]

    def get_subjects(self, operation: Operation) -> list[dict[str, str]]:
        return [{"kind": subject.kind, "id": subject.uid} for subject in operation.subjects.order_by("id")]

    def get_steps(self, operation: Operation) -> list[dict[str, Any]]:
        return [step_document(step) for step in operation.steps_in_order]

    def get_events(self, operation: Operation) -> list[dict[str, Any]]:
        return event_documents(Event.objects.filter(operation_uid=operation.uid).order_by("id"))


def _waiting(operation: Operation) -> Step | None:
    """The step that is in hand or next."""
    if operation.ended_at is not None:
        return None
    return next((step for step in operation.steps_in_order if step.ended_at is None and step.queued_at), None)


def event_documents(events: Any) -> list[dict[str, Any]]:
    """What happened, in the order given."""
    return [{"at": moment(event.created_at), "name": event.name, "message": event.message} for event in events]


def step_document(step: Step) -> dict[str, Any]:
    """One step of a story, its running attempt included."""
    return {
        "position": step.position,
        "task": step.task,
        "node": step.node or None,
        "lane": step.lane,
        "state": step.state,
        "done_in": step.done_in or None,
        "attempt": step.attempt,
        "attempts": _attempts(step),
        "progress": _progress(step),
        "started_at": moment(step.started_at),
        "ended_at": moment(step.ended_at),
        "commands": step.commands,
        "log": step.log.splitlines(),
        "result": step.result,
        "error": step.error,
    }


def _attempts(step: Step) -> list[dict[str, Any]]:
    past = [
        {**attempt, "started_at": _with_z(attempt["started_at"]), "ended_at": _with_z(attempt["ended_at"])}
        for attempt in step.attempts
    ]
    if step.worker and step.ended_at is None and step.state in (StepState.RUNNING, StepState.UNDOING):
        past.append(
            {
                "number": step.attempt,
                "worker": step.worker,
                "started_at": moment(step.claimed_at),
                "ended_at": None,
                "outcome": "running",
                "error": None,
            }
        )
    return past


def _with_z(text: str) -> str:
    return text.replace("+00:00", "Z")


def _progress(step: Step) -> dict[str, Any] | None:
    if step.progress_done is None:
        return None
    return {"done": step.progress_done, "total": step.progress_total, "unit": step.progress_unit}
