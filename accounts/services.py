"""What changes rows of accounts because someone asked: tokens and ssh key pairs."""

from __future__ import annotations

import secrets
import subprocess
import tempfile
from datetime import timedelta
from pathlib import Path

from django.contrib.auth.models import User
from django.db.models.functions import Now

from accounts.authentication import digest
from accounts.models import Account, ApiToken, Role, SshKeyPair
from accounts.openssh import BadKey, parse_public_key
from core.claim import claim
from core.errors import Forbidden, Invalid, Unavailable

MEMORY = Path("/dev/shm")  # noqa: S108  (a private directory is made in it)


def issue_token(
    account: Account,
    *,
    name: str,
    role: Role,
    issued_by: User | None,
    operator: bool = False,
    expires_in_s: int | None = None,
) -> tuple[ApiToken, str]:
    """A new token and its secret, which is shown now and never again.

    Raises Forbidden if an operator token is asked for by anyone but active staff.
    """
    if operator and not (issued_by is not None and issued_by.is_active and issued_by.is_staff):
        raise Forbidden("Only active staff may issue operator tokens.", code="operator_only", field="operator")
    secret = f"vdc_{secrets.token_urlsafe(32)}"
    token = ApiToken.objects.create(
        account=account,
        name=name,
        role=role,
        issued_by=issued_by,
        is_operator=operator,
        secret_sha256=digest(secret),
        expires_at=None if expires_in_s is None else Now() + timedelta(seconds=expires_in_s),
    )
    token.refresh_from_db()
    return token, secret


def revoke_token(token: ApiToken) -> None:
    """End a token for ever; revoking it again changes nothing."""
    claim(ApiToken.objects.filter(pk=token.pk, revoked_at=None), revoked_at=Now())
    token.refresh_from_db()


def import_ssh_key_pair(account: Account, *, name: str, public_key: str) -> SshKeyPair:
    """Keep somebody's public key; raises Invalid with a sentence if it is none."""
    try:
        key = parse_public_key(public_key)
    except BadKey as exc:
        raise Invalid(str(exc), code="bad_public_key", field="public_key") from exc
    return SshKeyPair.objects.create(account=account, name=name, public_key=key.line, fingerprint=key.fingerprint)


def create_ssh_key_pair(account: Account, *, name: str) -> tuple[SshKeyPair, str]:
    """Make an ed25519 pair; answers the row and the private key, which is kept nowhere."""
    private_key, public_key = _generate(comment=name)
    return import_ssh_key_pair(account, name=name, public_key=public_key), private_key


def delete_ssh_key_pair(pair: SshKeyPair) -> None:
    """Instances hold a copy of the key's text, so a key may go at any time."""
    pair.delete()


def _generate(*, comment: str) -> tuple[str, str]:
    """(private key, public key), by OpenSSH itself; the files live in memory for a moment."""
    with tempfile.TemporaryDirectory(prefix="vdc-key-", dir=MEMORY if MEMORY.is_dir() else None) as directory:
        file = Path(directory) / "key"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(file)]
        try:
            subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=10)
        except (OSError, subprocess.SubprocessError) as exc:
            raise Unavailable(
                f"No key could be made, because ssh-keygen failed ({type(exc).__name__}); import a public key instead.",
                code="key_generation_failed",
            ) from exc
        return file.read_text(), file.with_suffix(".pub").read_text()
