"""The base of every row that people can name: a public id, and a place in the order newest first."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Now

from core.uid import MAX_LENGTH, is_uid, new_uid


def validate_uid(value: str) -> None:
    """Refuse what does not look like a public id; for ids that operators choose in the admin."""
    if not is_uid(value):
        raise ValidationError(
            f"{value!r} is not an id: it takes a prefix, a hyphen, and small letters, digits and hyphens."
        )


class UidField(models.CharField):
    """A public id, made by itself from the `PREFIX` of its model, also in `bulk_create`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", MAX_LENGTH)
        kwargs.setdefault("unique", True)
        kwargs.setdefault("validators", [validate_uid])
        super().__init__(*args, **kwargs)

    def contribute_to_class(self, cls: type[models.Model], name: str, private_only: bool = False) -> None:
        prefix = getattr(cls, "PREFIX", "")
        if prefix:
            self.default = partial(new_uid, prefix)
        super().contribute_to_class(cls, name, private_only)

    def deconstruct(self) -> tuple[str, str, list, dict]:
        name, path, args, kwargs = super().deconstruct()
        for implied in ("default", "max_length", "unique", "validators"):
            kwargs.pop(implied, None)
        return name, path, args, kwargs

    def db_type(self, connection: Any) -> str:
        # Under this name for varchar Django does not add a second index for LIKE, which nobody asks of an id.
        return f"character varying({self.max_length})"


class Row(models.Model):
    """Abstract: `id` is the database's own, `uid` the public one (`PREFIX` says its kind).

    A child with a Meta of its own writes `class Meta(Row.Meta)` and `indexes = [*Row.Meta.indexes, …]`.
    """

    PREFIX = ""

    uid = UidField("id", editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)  # the database's clock is the only one

    class Meta:
        abstract = True
        ordering = ["-created_at", "-id"]
        indexes = [models.Index(fields=["-created_at", "-id"], name="%(class)s_newest")]

    def __str__(self) -> str:
        return self.uid
