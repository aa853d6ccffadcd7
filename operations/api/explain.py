"""GET explain/{id}: one page from symptom to cause, for every row that operations move, for operations and nodes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import Access
from accounts.api.scoped import AccountScopedViewSet, find
from core.errors import NotFound
from operations import engine, register
from operations.api.serializers import StorySerializer, event_documents, moment
from operations.explaining import Explainer, Facts, Sight, verdict_on_operation, verdict_on_row
from operations.models import Event, Operation
from operations.querysets import OperationQuerySet

MOST_OPERATIONS = 5
MOST_EVENTS = 10  # beside those of the operations shown


class ExplainViewSet(AccountScopedViewSet):
    """Scoped as the row itself is: what the caller may not see is not explained either."""

    rows = Operation.objects.select_related("account").prefetch_related("steps")
    noun = "operation"

    def retrieve(self, request: Request, uid: str) -> Response:
        prefix = uid.partition("-")[0]
        if prefix == Operation.PREFIX:
            return Response(explain_operation(self.get_object()))
        explainer = register.explainers.get(prefix)
        if explainer is None:
            told = ", ".join(f"{prefix}-…" for prefix in (Operation.PREFIX, *self._prefixes()))
            raise NotFound(f"Nothing of the id {uid} can be explained; what can is {told}.", code="not_found")
        if explainer.operators_only and not self.access.is_operator:
            raise NotFound(f"There is no {explainer.noun} {uid}.", code="not_found")
        return Response(explain_row(self._row(explainer, uid), explainer, self.access))

    def _row(self, explainer: Explainer, uid: str) -> Any:
        if not explainer.operators_only:
            return find(explainer.rows(), uid, noun=explainer.noun, request=self.request)
        row = explainer.rows().filter(uid=uid).first()
        if row is None:
            raise NotFound(f"There is no {explainer.noun} {uid}.", code="not_found")
        return row

    def _prefixes(self) -> list[str]:
        explainers = register.explainers.items()
        return [prefix for prefix, one in explainers if self.access.is_operator or not one.operators_only]


def explain_operation(operation: Operation) -> dict[str, Any]:
    """An operation, and the row that it moves as that row is now."""
    story = StorySerializer(operation).data
    explainer = register.explainers.get(operation.subject_uid.partition("-")[0])
    row = explainer and explainer.rows().filter(uid=operation.subject_uid).first()
    facts = explainer.facts(row) if row else Facts({})
    verdict = verdict_on_operation(story)
    steps = _next(operation.uid, story.get("error"), row, [story])
    return _document(operation.uid, "operation", operation.state, verdict, facts, [story], [], steps)


def explain_row(row: Any, explainer: Explainer, access: Access | None = None) -> dict[str, Any]:
    """A row with its last operations; nodes have none of their own. `access` sees its own: an image may be public."""
    operations, events = Operation.objects.all(), Event.objects.all()
    if access is not None and not access.is_operator:
        operations, events = operations.visible_to(access), events.filter(account_id=access.account.id)
    facts = explainer.facts(row)
    error = getattr(row, "error", None)
    stories = _stories(operations, row, facts, error)
    state = str(getattr(row, "state", ""))
    verdict = verdict_on_row(row.uid, state, error, stories, facts)
    shown = [story["id"] for story in stories]
    apart = events.filter(subject_uid=row.uid).exclude(operation_uid__in=shown).order_by("-id")[:MOST_EVENTS]
    steps = _next(row.uid, error, row, stories)
    return _document(row.uid, explainer.noun, state, verdict, facts, stories, event_documents(apart), steps)


def explained(uid: str) -> dict[str, Any] | None:
    """For operators, who see everything: the document of any id, None when there is no such row."""
    prefix = uid.partition("-")[0]
    if prefix == Operation.PREFIX:
        operation = Operation.objects.filter(uid=uid).first()
        return operation and explain_operation(operation)
    explainer = register.explainers.get(prefix)
    row = explainer and explainer.rows().filter(uid=uid).first()
    return row and explain_row(row, explainer)


def _stories(
    operations: OperationQuerySet, row: Any, facts: Facts, error: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """The last operations of the row and of those that it belongs to, and the one that left it in error."""
    operations = operations.prefetch_related("steps")
    its = list(operations.filter(subject_uid__in=[row.uid, *facts.concerns])[:MOST_OPERATIONS])
    cause = (error or {}).get("operation")
    if cause and cause not in {one.uid for one in its}:
        its += operations.filter(uid=cause)
    return [StorySerializer(one).data for one in its]


def _document(
    uid: str,
    kind: str,
    state: str,
    verdict: str,
    facts: Facts,
    stories: list[dict[str, Any]],
    events: list[dict[str, Any]],
    steps: list[dict[str, Any]],
) -> dict[str, Any]:
    now = timezone.now()
    return {
        "id": uid,
        "kind": kind,
        "state": state or None,
        "verdict": verdict,
        "asked": facts.asked,
        "seen": [_sight(sight, now) for sight in facts.seen],
        "operations": stories,
        "events": events,
        "held": facts.held,
        "next": steps,
    }


def _sight(sight: Sight, now: datetime) -> dict[str, Any]:
    age_s = max((now - sight.at).total_seconds(), 0.0) if sight.at else None
    return {"of": sight.of, "what": sight.what, "at": moment(sight.at), "age_s": age_s and round(age_s, 1)}


def _next(uid: str, error: dict[str, Any] | None, row: Any, stories: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What can be done: the advice of the fault, then each verb that would be taken now, with a sentence."""
    found: list[dict[str, Any]] = []
    if error and error.get("advice"):
        found.append({"verb": None, "on": uid, "says": error["advice"]})
    for story in stories:
        found += [{"verb": verb, "on": story["id"], "says": OF_OPERATIONS[verb]} for verb in story["allowed_verbs"]]
    if row is not None and getattr(row, "KIND", "") in register.nouns:
        verbs = register.nouns[row.KIND].verbs
        for name in engine.allowed_verbs(row, engine.holder_of(row.uid)):
            found.append({"verb": name, "on": row.uid, "says": verbs[name].says})
    return found


OF_OPERATIONS = {
    "cancel": "stops it at its next safe point and undoes what it made",
}
