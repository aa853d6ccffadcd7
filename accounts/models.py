"""Accounts: who owns resources, who acts for them, and with which token and keys."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from accounts.owned import OwnedRow
from core.rows import Row


class Role(models.TextChoices):
    """Each role may do what the one before it may."""

    VIEWER = "viewer", "viewer: reads"
    MEMBER = "member", "member: reads and changes resources"
    OWNER = "owner", "owner: a member who also manages tokens"


class Account(Row):
    """Owns every other resource. A disabled account's tokens are refused; its guests run on."""

    PREFIX = "a"

    name = models.CharField(max_length=255)
    enabled = models.BooleanField(default=True)

    def __str__(self) -> str:
        return f"{self.uid} ({self.name})"


class Member(models.Model):
    """A person who may act for an account in the web pages."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="members")
    role = models.CharField(max_length=16, choices=Role)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user", "account"],
                name="one_membership_per_account",
                violation_error_message="This user is a member of the account already; change the role instead.",
            )
        ]

    def __str__(self) -> str:
        return f"{self.user} as {self.role} of {self.account}"


class ApiToken(OwnedRow):
    """A key to the API. Only the SHA-256 of the secret is kept: its 256 random bits need no slow hash."""

    PREFIX = "tok"

    name = models.CharField(max_length=255)
    secret_sha256 = models.CharField(max_length=64, unique=True, editable=False)
    role = models.CharField(max_length=16, choices=Role)
    is_operator = models.BooleanField(default=False, editable=False)
    issued_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, editable=False, related_name="+"
    )
    expires_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)


class SshKeyPair(OwnedRow):
    """A public key that instances get at launch. Instances keep the text, so a key may go at any time."""

    PREFIX = "ssh"

    name = models.CharField(max_length=255)
    public_key = models.TextField()
    fingerprint = models.CharField(max_length=128, editable=False)


class AccessRecord(models.Model):
    """An operator reached into somebody else's account: who, what, whose and when."""

    token = models.ForeignKey(ApiToken, on_delete=models.SET_NULL, null=True, editable=False, related_name="+")
    who = models.CharField(max_length=255, editable=False)
    method = models.CharField(max_length=8, editable=False)
    path = models.CharField(max_length=1024, editable=False)
    account = models.ForeignKey(Account, on_delete=models.CASCADE, editable=False, related_name="+")
    created_at = models.DateTimeField(db_default=models.functions.Now(), editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [models.Index(fields=["account", "-created_at", "-id"], name="accessrecord_account_newest")]

    def __str__(self) -> str:
        return f"{self.who}: {self.method} {self.path}"
