"""Bases of what the API reads and prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.validators import RegexValidator
from rest_framework import serializers


class NameField(serializers.CharField):
    """What people call a thing: one line of text, 1 to 255 characters."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 255)
        super().__init__(**kwargs)
        self.validators.append(RegexValidator(r"^[^\x00-\x1f\x7f]*\Z", "Use one line without control characters."))


class InputSerializer(serializers.Serializer):
    """Reads a body. A field that nobody knows is refused by name: a typing error must not pass for a default."""

    def run_validation(self, data: Any = serializers.empty) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            raise serializers.ValidationError({"non_field_errors": ["The body must be a JSON object: {…}."]})
        known = [name for name, field in self.fields.items() if not field.read_only]
        unknown = [str(name) for name in data if name not in known]
        if unknown:
            takes = f"This takes {', '.join(known)}." if known else "This takes no fields."
            raise serializers.ValidationError({unknown[0]: [f"Unknown field. {takes}"]})
        return super().run_validation(data)


class NothingInput(InputSerializer):
    """Verbs that take no fields."""


class RowSerializer(serializers.ModelSerializer):
    """Prints a row: `id` is the public id. A noun adds its fields after `BASE_FIELDS` and says its `allowed_verbs`."""

    BASE_FIELDS = ["id", "created_at", "allowed_verbs"]

    id = serializers.CharField(source="uid", read_only=True)
    allowed_verbs = serializers.SerializerMethodField()

    def get_allowed_verbs(self, row: Any) -> list[str]:
        """What may be done to it now; nouns with verbs override this."""
        return []
