"""Finds out which API to speak to, and as whom."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from cli.errors import WrongUse

API_PATH = "/api/v1"


@dataclass(frozen=True, slots=True)
class Login:
    """`url` is the root of the site, without `/api/v1`; `origin` says where both were found."""

    url: str
    token: str = field(repr=False)
    origin: str


def login_file() -> Path:
    """Written by `make demo` into the virtual environment which holds this very command."""
    return Path(sys.prefix) / "vdc-login.json"


def find_login() -> Login:
    """VDC_URL with VDC_TOKEN, else the login file. Raises WrongUse with what to do."""
    url, token = os.environ.get("VDC_URL", ""), os.environ.get("VDC_TOKEN", "")
    if url and token:
        return _checked(url, token, "VDC_URL and VDC_TOKEN")
    if url or token:
        # Filling the gap from the file could send a token to a host it was not made for.
        there, missing = ("VDC_URL", "VDC_TOKEN") if url else ("VDC_TOKEN", "VDC_URL")
        raise WrongUse(f"{there} is set and {missing} is not: set both, or none to use {login_file()}.")
    return _from_file(login_file())


def _from_file(path: Path) -> Login:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WrongUse(
            f"There is no login: {path} does not exist and VDC_URL and VDC_TOKEN are not set.\n"
            "On the machine of the data center `make demo` writes that file; elsewhere set both variables,\n"
            "for example VDC_URL=http://127.0.0.1:8080."
        ) from None
    except OSError as error:
        raise WrongUse(f"The login file {path} cannot be read: {error.strerror or error}.") from None
    except ValueError:
        raise WrongUse(f'The login file {path} is not JSON like {{"url": "…", "token": "…"}}: {_REMEDY}') from None
    if not isinstance(content, dict):
        raise WrongUse(f'The login file {path} does not hold an object {{"url": "…", "token": "…"}}: {_REMEDY}')
    for key in ("url", "token"):
        if not isinstance(content.get(key), str) or not content[key]:
            raise WrongUse(f'The login file {path} has no text under "{key}": {_REMEDY}')
    return _checked(content["url"], content["token"], str(path))


_REMEDY = "run `make demo` again, or set VDC_URL and VDC_TOKEN."


def _checked(url: str, token: str, origin: str) -> Login:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise WrongUse(f"{url!r} (from {origin}) is not the URL of an API, like http://127.0.0.1:8080.")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise WrongUse(f"The token from {origin} holds characters that no token has: copy it again.")
    return Login(url=url.rstrip("/").removesuffix(API_PATH).rstrip("/"), token=token, origin=origin)
