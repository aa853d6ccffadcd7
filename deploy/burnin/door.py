"""The campaign's way in: the HTTP API with an operator's token, through a web that is being killed and frozen."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import httpx

from deploy.laptop import Stack, StackError
from deploy.laptop.stack import CLONE

ANSWER_S = 12.0


class Unanswered(Exception):
    """Nobody knows whether the request was taken: the line broke, or the door said that it is out of order."""


class Refused(Exception):
    """The door said no, in words; `code` names the reason."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail", str(problem)))
        self.code = problem.get("code", "")


class Door:
    """One operator's API; may be used by many threads."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(
            base_url=f"{url}/api/v1/",
            headers={"Authorization": f"Bearer {token}"},
            timeout=ANSWER_S,
            trust_env=False,
        )

    def ask(self, method: str, path: str, **rest: Any) -> dict[str, Any]:
        """The document. Raises Unanswered or Refused."""
        try:
            answer = self._client.request(method, path, **rest)
            document = answer.json()
        except (httpx.HTTPError, ValueError) as exc:
            raise Unanswered(f"{type(exc).__name__}: {exc}") from exc
        if answer.status_code >= 500:
            raise Unanswered(f"{answer.status_code}: {document.get('detail', '')}")
        if not answer.is_success:
            raise Refused(document)
        return document

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        return self.ask("GET", path, params=query)

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return self.ask("POST", path, json=body or {})

    def close(self) -> None:
        self._client.close()


def open_door(stack: Stack, content: dict[str, Any]) -> Door:
    """A door with a fresh token for the account that every stack begins with."""
    words = ["--account", "demo", "--issuer", content["operator"]["username"], "--name", "burnin", "--role", "owner"]
    done = subprocess.run(
        [sys.executable, "manage.py", "issue_token", *words, "--operator"],
        cwd=CLONE,
        env=stack.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["it said nothing"]
        raise StackError(f"No token could be issued: {words[-1]}")
    return Door(f"http://127.0.0.1:{content['port']}", done.stdout.strip())
