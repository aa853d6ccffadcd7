"""The base of every noun that belongs to an account: what is not the caller's is not there."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models.functions import Now
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from accounts.access import Access
from accounts.models import AccessRecord, Account
from accounts.owned import OwnedQuerySet
from core.api.views import ApiViewSet
from core.errors import NotFound
from core.uid import is_uid

RECORDED_AGAIN_AFTER = timedelta(minutes=1)  # someone who watches an operation reads it every second


class AccountScopedViewSet(ApiViewSet):
    """A noun sets `rows` (an OwnedQuerySet) and `noun` ("instance"), and asks `self.access` who is there.

    Lists show the account of the caller; operators may name another with ?account=. Single rows of other accounts
    answer 404, and operators reach them with a record of it.
    """

    rows: OwnedQuerySet
    noun = "object"

    @property
    def access(self) -> Access:
        return self.request.auth

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        account_uid = request.query_params.get("account")
        if account_uid is not None:
            self.request.auth = self._look_at(account_uid)

    def known_parameters(self) -> set[str]:
        return super().known_parameters() | ({"account"} if self.action == "list" else set())

    def get_queryset(self) -> OwnedQuerySet:
        rows = self.rows.all()
        return rows.visible_to(self.access) if self.action == "list" else rows.reachable_by(self.access)

    def get_object(self) -> Any:
        """The row that the path names, or NotFound; an operator's reach into another account is recorded."""
        return find(self.get_queryset(), self.kwargs[self.lookup_url_kwarg], noun=self.noun, request=self.request)

    def _look_at(self, account_uid: str) -> Access:
        if account_uid == self.access.account.uid:
            return self.access
        may_exist = self.access.is_operator and is_uid(account_uid)
        account = Account.objects.filter(uid=account_uid).first() if may_exist else None
        if account is None:
            raise NotFound(f"There is no account {account_uid}.", code="not_found", field="account")
        record_operator_access(self.request, account)
        return self.access.looking_at(account)


def find(rows: OwnedQuerySet, uid: str, *, noun: str, request: Request, field: str = "") -> Any:
    """The row of this id that the caller of `request` may name; `field` says where in a body the id stood.

    What only an operator's power reaches is recorded; an own or a public row is not.
    """
    access: Access = request.auth
    row = None
    if is_uid(uid):
        named = rows.filter(uid=uid)
        row = named.reachable_by(access.as_tenant()).first()
        if row is None and access.is_operator:
            row = named.reachable_by(access).first()
            if row is not None and row.account is not None:  # what belongs to nobody is the operators' own
                record_operator_access(request, row.account)
    if row is None:
        raise NotFound(f"There is no {noun} {uid}.", code="not_found", field=field)
    return row


def record_operator_access(request: Request, account: Account) -> None:
    """Leave a trace of an operator who reaches into `account`; of the same reading, one a minute."""
    access: Access = request.auth
    trace = {"who": access.who, "method": request.method, "path": request.path[:1024], "account": account}
    if request.method in SAFE_METHODS:
        recent = AccessRecord.objects.filter(**trace, created_at__gt=Now() - RECORDED_AGAIN_AFTER)
        if recent.exists():
            return
    AccessRecord.objects.create(**trace, token=access.token)
