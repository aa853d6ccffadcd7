"""Reads the bearer token of a request and finds out who is asking."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timedelta

from django.contrib.auth.models import AnonymousUser
from django.db.models.functions import Now
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from accounts.access import Access
from accounts.models import ApiToken, Role
from core.errors import Unauthorized

SECRET = re.compile(r"vdc_[A-Za-z0-9_-]{43}")
LAST_USE_IS_KEPT_TO = timedelta(minutes=1)  # one write a minute, however busy the token


class BearerToken(BaseAuthentication):
    """`Authorization: Bearer vdc_…`; `request.auth` becomes the Access."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, Access] | None:
        header = request.headers.get("Authorization")
        if header is None:
            return None
        scheme, _, secret = header.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized(
                "Only bearer tokens are understood; send `Authorization: Bearer vdc_…`.", code="token_malformed"
            )
        return AnonymousUser(), access_of(secret.strip())

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


def access_of(secret: str) -> Access:
    """The access that this token gives now; Unauthorized with the reason if it gives none."""
    if SECRET.fullmatch(secret) is None:
        raise Unauthorized(
            "This does not look like a token: a token is `vdc_` and 43 more characters. Was it cut while copying?",
            code="token_malformed",
        )
    token = (
        ApiToken.objects.select_related("account", "issued_by")
        .annotate(db_now=Now())  # time is compared by the database's own clock
        .filter(secret_sha256=digest(secret))
        .first()
    )
    if token is None:
        raise Unauthorized("This token is not known here; ask an owner of the account for one.", code="token_unknown")
    if token.revoked_at is not None:
        raise Unauthorized(f"This token was revoked at {_moment(token.revoked_at)}.", code="token_revoked")
    if token.expires_at is not None and token.expires_at <= token.db_now:
        raise Unauthorized(f"This token expired at {_moment(token.expires_at)}.", code="token_expired")
    if not token.account.enabled:
        raise Unauthorized(f"The account {token.account.uid} is disabled.", code="account_disabled")
    if token.last_used_at is None or token.last_used_at < token.db_now - LAST_USE_IS_KEPT_TO:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=Now())
    return Access(
        account=token.account,
        role=Role(token.role),
        is_operator=operates(token),
        who=f"token {token.name} ({token.uid})",
        token=token,
    )


def digest(secret: str) -> str:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def operates(token: ApiToken) -> bool:
    """An operator token is one only as long as the person who issued it is active staff."""
    issuer = token.issued_by
    return token.is_operator and issuer is not None and issuer.is_active and issuer.is_staff


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")
