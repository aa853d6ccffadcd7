"""`manage.py issue_token`: a token for somebody, shown once or written into the login file of the command line."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from accounts.authentication import digest
from accounts.models import Account, ApiToken, Role
from accounts.services import issue_token


class Command(BaseCommand):
    help = "Issue an API token; with --login-file, one that still works is kept."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--account", required=True, help="id or name of the account")
        parser.add_argument("--issuer", required=True, help="user name of the member of staff who issues it")
        parser.add_argument("--name", required=True, help="what the token is for")
        parser.add_argument("--role", choices=Role.values, default=Role.MEMBER)
        parser.add_argument("--operator", action="store_true", help="may reach nodes and every account")
        parser.add_argument("--login-file", type=Path, help="write url and token here, mode 0600")
        parser.add_argument("--url", help="the address that goes into the login file")

    def handle(self, *args: Any, **options: Any) -> None:
        path, url = options["login_file"], options["url"]
        if path and not url:
            raise CommandError("--login-file needs --url.")
        if path and _still_works(path, url):
            return
        account = Account.objects.filter(uid=options["account"]).first()
        account = account or Account.objects.filter(name=options["account"]).first()
        if account is None:
            raise CommandError(f"There is no account {options['account']!r}.")
        issuer = get_user_model().objects.filter(username=options["issuer"]).first()
        if issuer is None:
            raise CommandError(f"There is no user {options['issuer']!r}.")
        _, secret = issue_token(
            account, name=options["name"], role=options["role"], issued_by=issuer, operator=options["operator"]
        )
        if path:
            _write(path, {"url": url, "token": secret})
        else:
            self.stdout.write(secret)


def _still_works(path: Path, url: str) -> bool:
    try:
        login = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return False
    token = login.get("token", "")
    known = ApiToken.objects.filter(secret_sha256=digest(token), revoked_at=None, expires_at=None)
    return login.get("url") == url and known.exists()


def _write(path: Path, login: dict[str, str]) -> None:
    temporary = path.with_name(f"{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(login, file)
    temporary.replace(path)
