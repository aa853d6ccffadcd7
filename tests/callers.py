"""Fixtures of every door: two accounts, tokens for every role, and a client that sends one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from accounts import services
from accounts.models import Account, ApiToken, Role


@dataclass(frozen=True)
class Caller:
    """A token in use: `client` sends it with every request."""

    account: Account
    token: ApiToken
    secret: str
    client: APIClient


@pytest.fixture
def staff(db: None) -> User:
    return User.objects.create_user("olga", password="a-long-pass-phrase", is_staff=True)


@pytest.fixture
def caller(db: None) -> Callable[..., Caller]:
    """`caller(account, Role.MEMBER, operator=…, issued_by=…)`: a fresh token of this account."""

    def make(account: Account, role: Role = Role.MEMBER, **options: object) -> Caller:
        options.setdefault("issued_by", None)
        token, secret = services.issue_token(account, name=f"{role} token", role=role, **options)
        client = APIClient(raise_request_exception=False)
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
        return Caller(account, token, secret, client)

    return make


@pytest.fixture
def ours(db: None) -> Account:
    return Account.objects.create(name="ours")


@pytest.fixture
def theirs(db: None) -> Account:
    return Account.objects.create(name="theirs")
