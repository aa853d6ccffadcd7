"""Who gets in with which token, and as what."""

from __future__ import annotations

import logging
import re

import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now
from rest_framework.test import APIClient

from accounts import services
from accounts.models import Account, ApiToken, Role
from core.errors import Forbidden

pytestmark = pytest.mark.django_db
ACCOUNT = "/api/v1/account"
TOKENS = "/api/v1/tokens"


def ask(authorization: str | None):
    client = APIClient(raise_request_exception=False)
    if authorization is not None:
        client.credentials(HTTP_AUTHORIZATION=authorization)
    return client.get(ACCOUNT)


def test_a_token_opens_its_account(caller, ours):
    answer = caller(ours, Role.VIEWER).client.get(ACCOUNT)
    assert answer.status_code == 200
    assert answer.json()["id"] == ours.uid
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", answer.json()["created_at"])
    assert answer.json()["access"]["role"] == "viewer"


@pytest.mark.parametrize(
    ("authorization", "code", "word"),
    [
        (None, "token_missing", "Authorization: Bearer"),
        ("", "token_malformed", "bearer"),
        ("Basic dXNlcjpwYXNz", "token_malformed", "bearer"),
        ("Bearer", "token_malformed", "cut while copying"),
        ("Bearer vdc_short", "token_malformed", "cut while copying"),
        ("Bearer vdc_ümläut", "token_malformed", "cut while copying"),
        ("Bearer vdc_" + "A" * 43, "token_unknown", "not known"),
    ],
)
def test_a_missing_or_bad_token_is_told_why(authorization, code, word):
    answer = ask(authorization)
    assert answer.status_code == 401
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["WWW-Authenticate"] == "Bearer"
    assert answer.json()["code"] == code
    assert word in answer.json()["detail"]


def test_an_expired_token_is_refused_with_its_time(caller, ours):
    used = caller(ours)
    assert used.client.get(ACCOUNT).status_code == 200
    ApiToken.objects.filter(pk=used.token.pk).update(expires_at=Now())
    answer = used.client.get(ACCOUNT)
    assert (answer.status_code, answer.json()["code"]) == (401, "token_expired")
    assert "UTC" in answer.json()["detail"]


def test_a_token_may_be_given_a_life_span(caller, ours):
    answer = caller(ours, Role.OWNER).client.post(TOKENS, {"name": "ci", "role": "viewer", "expires_in_s": 3600})
    assert answer.status_code == 201
    token = ApiToken.objects.get(uid=answer.json()["id"])
    assert 3599 <= (token.expires_at - token.created_at).total_seconds() <= 3601
    assert ask(f"Bearer {answer.json()['secret']}").status_code == 200


def test_a_revoked_token_is_refused_at_once(caller, ours):
    owner, used = caller(ours, Role.OWNER), caller(ours)
    assert owner.client.delete(f"{TOKENS}/{used.token.uid}").status_code == 204
    answer = used.client.get(ACCOUNT)
    assert (answer.status_code, answer.json()["code"]) == (401, "token_revoked")


def test_revoking_twice_keeps_the_first_time(caller, ours):
    token = caller(ours).token
    services.revoke_token(token)
    first = token.revoked_at
    services.revoke_token(token)
    assert token.revoked_at == first


def test_a_disabled_account_lets_nobody_in(caller, ours):
    used = caller(ours)
    Account.objects.filter(pk=ours.pk).update(enabled=False)
    assert used.client.get(ACCOUNT).json()["code"] == "account_disabled"


def test_the_secret_is_shown_once_and_stored_hashed(caller, ours, caplog):
    caplog.set_level(logging.DEBUG)
    owner = caller(ours, Role.OWNER)
    made = owner.client.post(TOKENS, {"name": "ci", "role": "member"}).json()
    assert re.fullmatch(r"vdc_[A-Za-z0-9_-]{43}", made["secret"])
    listed = owner.client.get(TOKENS)
    assert made["secret"] not in listed.content.decode()
    row = ApiToken.objects.filter(uid=made["id"]).values().get()
    assert made["secret"] not in str(row)
    assert row["secret_sha256"] not in listed.content.decode()
    assert made["secret"] not in caplog.text


def test_use_is_written_at_most_once_a_minute(caller, ours, django_assert_num_queries):
    used = caller(ours)
    with django_assert_num_queries(2):  # look up, note the use
        used.client.get(ACCOUNT)
    with django_assert_num_queries(1):
        used.client.get(ACCOUNT)
    used.token.refresh_from_db()
    assert used.token.last_used_at is not None


@pytest.mark.parametrize("role", [Role.VIEWER, Role.MEMBER])
def test_only_owners_manage_tokens(caller, ours, role):
    used = caller(ours, role)
    answer = used.client.post(TOKENS, {"name": "more", "role": "owner"})
    assert (answer.status_code, answer.json()["code"]) == (403, "role_too_low")
    assert "owner" in answer.json()["detail"]
    assert used.client.delete(f"{TOKENS}/{used.token.uid}").status_code == 403


def test_an_owner_who_is_no_operator_cannot_make_one(caller, ours, staff):
    owner = caller(ours, Role.OWNER, issued_by=staff)
    answer = owner.client.post(TOKENS, {"name": "sneaky", "role": "owner", "operator": True})
    assert (answer.status_code, answer.json()["field"]) == (403, "operator")
    assert not ApiToken.objects.filter(is_operator=True).exists()


def test_only_staff_may_issue_operator_tokens(ours):
    someone = User.objects.create_user("tom")
    for issuer in (None, someone):
        with pytest.raises(Forbidden):
            services.issue_token(ours, name="x", role=Role.OWNER, issued_by=issuer, operator=True)


@pytest.mark.parametrize("change", [{"is_staff": False}, {"is_active": False}])
def test_an_operator_token_loses_its_power_with_the_staff_status(caller, ours, staff, change):
    operator = caller(ours, Role.OWNER, operator=True, issued_by=staff)
    assert operator.client.get(ACCOUNT).json()["access"]["operator"] is True
    User.objects.filter(pk=staff.pk).update(**change)
    answer = operator.client.get(ACCOUNT)
    assert answer.status_code == 200, "the token still serves its own account"
    assert answer.json()["access"]["operator"] is False
    assert operator.client.post(TOKENS, {"name": "x", "role": "owner", "operator": True}).status_code == 403


def test_an_operator_token_loses_its_power_with_its_issuer(caller, ours, staff):
    operator = caller(ours, Role.OWNER, operator=True, issued_by=staff)
    staff.delete()
    assert operator.client.get(ACCOUNT).json()["access"]["operator"] is False
