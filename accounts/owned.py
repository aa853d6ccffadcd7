"""What belongs to an account: the base of every noun that a tenant can own."""

from __future__ import annotations

from typing import Self

from django.db import models

from core.rows import Row


class OwnedQuerySet(models.QuerySet):
    """Asks "whose?" before anything else."""

    def visible_to(self, access) -> Self:
        """The rows that lists of this caller show: those of the account that `access` looks at."""
        return self.filter(account_id=access.account.id)

    def reachable_by(self, access) -> Self:
        """The rows that this caller may name by id: an operator those of every account, others their own."""
        return self.all() if access.is_operator else self.visible_to(access)


class OwnedRow(Row):
    """Abstract: a row of one account, with the index that its account's lists walk."""

    account = models.ForeignKey("accounts.Account", on_delete=models.PROTECT, related_name="+", db_index=False)

    objects = OwnedQuerySet.as_manager()

    class Meta(Row.Meta):
        abstract = True
        indexes = [
            *Row.Meta.indexes,
            models.Index(fields=["account", "-created_at", "-id"], name="%(class)s_account_newest"),
        ]
