"""What every noun that moves prints beside its own fields: state, error, open operation, verbs allowed now."""

from __future__ import annotations

from typing import Any

from django.db.models import Model
from rest_framework import serializers

from core.api.serializers import RowSerializer
from operations import engine
from operations.models import Operation, OperationSubject
from operations.states import Hold


class MovingSerializer(RowSerializer):
    """Base of such nouns. Lists read the open operations of all their rows in one statement."""

    MOVING_FIELDS = [*RowSerializer.BASE_FIELDS, "state", "error", "operation"]

    operation = serializers.SerializerMethodField()

    def get_operation(self, row: Any) -> str | None:
        holder = self._holder(row)
        return holder and holder.uid

    def get_allowed_verbs(self, row: Any) -> list[str]:
        return engine.allowed_verbs(row, self._holder(row))

    def _holder(self, row: Any) -> Operation | None:
        holders = self.context.get("holders")
        if holders is None:
            rows = self.parent.instance if self.parent is not None else [row]
            holders = self.context["holders"] = _holders(rows)
        return holders.get(row.uid)


def _holders(rows: list[Model]) -> dict[str, Operation]:
    held = OperationSubject.objects.filter(uid__in=[row.uid for row in rows], hold=Hold.OPEN)
    return {subject.uid: subject.operation for subject in held.select_related("operation")}
