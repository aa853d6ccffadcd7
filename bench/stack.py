"""A data center that is there for one bench alone, and the way into it."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cli.client import Client
from cli.login import Login
from cli.upload import chunks
from deploy.laptop import Stack, clean, up
from deploy.laptop.claim import claim
from deploy.laptop.starting import manage

FAKE_MEMORY_MIB = 32


@contextmanager
def own_stack(name: str, **settings: Any) -> Iterator[dict[str, Any]]:
    """The content of its stack file, with these `settings` in it. What an interrupted run left is removed first."""
    stack = Stack(name)
    clean(name)
    try:
        stack.write(claim(stack) | settings)
        yield up(name)
    finally:
        clean(name)


def operator_login(content: dict[str, Any], work: Path) -> dict[str, str]:
    """A token of an operator who is owner of the account `demo`, and the URL that takes it."""
    login_file = work / "login.json"
    words = ["--account", "demo", "--issuer", content["operator"]["username"], "--name", "bench", "--role", "owner"]
    words += ["--operator", "--login-file", str(login_file), "--url", f"http://127.0.0.1:{content['port']}"]
    manage(Stack(content["name"]), "login", "a token for the bench", "issue_token", *words)
    return json.loads(login_file.read_text())


def door_of(login: dict[str, str]) -> Client:
    """The API with that token."""
    return Client(Login(url=login["url"], token=login["token"], origin="the bench"), notice=print)


def fake_image(door: Client, work: Path) -> str:
    """The id of an image that fake guests start from."""
    packed = work / "fake.gz"
    packed.write_bytes(gzip.compress(bytes(1 << 20)))
    content = packed.read_bytes()
    facts = {"file": packed.name, "stored_size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    facts |= {"name": "fake", "hypervisor": "fake", "arch": "x86_64", "format": "gz", "os_type": "linux"}
    facts |= {"init": "", "root_device": "", "min_memory_mib": FAKE_MEMORY_MIB}
    return import_image(door, work, facts)["id"]


def import_image(door: Client, folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Upload `facts["file"]` and register it as the facts of a guest image say; returns the image's document."""
    path, size_bytes = folder / facts["file"], facts["stored_size_bytes"]
    announced = {"name": facts["name"], "format": facts["format"], "size_bytes": size_bytes, "sha256": facts["sha256"]}
    stored = door.post("backup-objects", announced)
    with path.open("rb") as file:
        content = chunks(file, path, size_bytes, lambda count: None)
        door.put_stream(f"backup-objects/{stored['id']}/content", content, size_bytes=size_bytes)
    known = ("name", "hypervisor", "arch", "os_type", "init", "root_device", "min_memory_mib")
    return door.post("images", {"backup_object": stored["id"], **{name: facts[name] for name in known}})
