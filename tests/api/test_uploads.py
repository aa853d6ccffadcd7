"""Uploads through real processes: gunicorn for the web door, gunicorn for the node's files."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from django.db import connection

from accounts.models import Role
from hypervisor.models import Node
from tests.api.checks import every_row, told
from volumes.models import BackupObject

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE_S = 30
PROJECT = Path(__file__).resolve().parents[2]
RAW = random.Random(7).randbytes(700_000) + bytes(2_000_000)
PACKED = gzip.compress(RAW)
OBJECTS = "/api/v1/backup-objects"


@dataclass
class Doors:
    """A member's client of the web door, and where the node keeps what it stores."""

    client: httpx.Client
    storage: Path
    web_port: int
    files: subprocess.Popen

    def announce(self, **facts: object) -> str:
        answer = self.client.post(OBJECTS, json={"format": "gz", **facts})
        assert answer.status_code == 201, answer.text
        assert answer.json()["state"] == "pending"
        return answer.json()["id"]

    def put(self, uid: str, content: object, **options: object) -> httpx.Response:
        return self.client.put(f"{OBJECTS}/{uid}/content", content=content, **options)

    def stored(self) -> list[str]:
        """The names of all files of the storage, half-made ones included."""
        return sorted(path.name for path in self.storage.iterdir()) if self.storage.exists() else []


@contextmanager
def gunicorn(app: str, port: int, stack_file: Path, log: Path) -> Iterator[subprocess.Popen]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", app, "-k", "gthread", "--threads", "4", "-b", f"127.0.0.1:{port}"],
            cwd=PROJECT,
            env={**os.environ, "VDC_STACK_FILE": str(stack_file), "VDC_PROCESS": "web"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        await_port(port, process, log)
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def await_port(port: int, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@pytest.fixture
def doors(caller, ours, cluster, tmp_path: Path) -> Iterator[Doors]:
    web_port, files_port = free_port(), free_port()
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    database = {**cluster.stack()["database"], "NAME": connection.settings_dict["NAME"]}
    stack = cluster.stack(database=database, state_dir=str(state_dir), port=web_port, files_port=files_port)
    stack_file = state_dir / "stack.json"
    stack_file.write_text(json.dumps(stack))
    Node.objects.update(files_url=f"http://127.0.0.1:{files_port}", files_token=stack["files_token"])
    member = caller(ours, Role.MEMBER)
    with ExitStack() as running:
        files_app = f'hypervisor.files_server:FilesServer("{state_dir}")'
        files = running.enter_context(gunicorn(files_app, files_port, stack_file, tmp_path / "files.log"))
        running.enter_context(gunicorn("vdcproject.wsgi", web_port, stack_file, tmp_path / "web.log"))
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{web_port}",
            headers={"Authorization": f"Bearer {member.secret}"},
            timeout=PATIENCE_S,
            trust_env=False,
        )
        yield Doors(running.enter_context(client), state_dir / "storage", web_port, files)


def await_state(uid: str, state: str) -> BackupObject:
    deadline = time.monotonic() + PATIENCE_S
    while (row := BackupObject.objects.get(uid=uid)).state != state:
        assert time.monotonic() < deadline, f"{uid} stays {row.state}"
        time.sleep(0.05)
    return row


def assert_as_if_nothing_had_come(doors: Doors, uid: str, before: dict) -> None:
    """Pending again, no file, and all rows as they were; so the next try may succeed."""
    await_state(uid, "pending")
    assert doors.stored() == []
    assert every_row() == before


def test_what_arrives_whole_is_available_and_proved(doors):
    digest = hashlib.sha256(PACKED).hexdigest()
    uid = doors.announce(name="disk", size_bytes=len(PACKED), sha256=digest)
    answer = doors.put(uid, PACKED)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["state"], body["sha256"]) == ("available", digest)
    assert (body["size_bytes"], body["raw_size_bytes"]) == (len(PACKED), len(RAW))
    assert doors.stored() == [uid]
    assert (doors.storage / uid).read_bytes() == PACKED


def test_a_chunked_upload_needs_no_announcement(doors):
    uid = doors.announce()
    answer = doors.put(uid, (PACKED[at : at + 10_000] for at in range(0, len(PACKED), 10_000)))
    assert (answer.status_code, answer.json()["size_bytes"]) == (200, len(PACKED))


def test_a_second_upload_is_refused_and_the_first_stays(doors):
    uid = doors.announce()
    assert doors.put(uid, PACKED).status_code == 200
    before = every_row()
    told(doors.put(uid, gzip.compress(b"other")), 409, "wrong_state", names=(uid, "available"))
    assert every_row() == before
    assert (doors.storage / uid).read_bytes() == PACKED


@pytest.mark.parametrize(
    ("facts", "content", "words"),
    [
        ({}, PACKED[:-20], ("Nothing was kept",)),
        ({}, PACKED[: len(PACKED) // 2], ("Nothing was kept",)),
        ({}, PACKED[:400_000] + b"\x00\xff" * 50 + PACKED[400_100:], ("Nothing was kept",)),
        ({}, PACKED + b"something else", ("Nothing was kept",)),
        ({}, b"this is no gzip", ("gzip", "Nothing was kept")),
        ({}, RAW, ("gzip", "Nothing was kept")),
        ({}, b"", ("Nothing was kept",)),
        ({"format": "raw"}, b"", ("Nothing was kept",)),
        ({"sha256": "0" * 64}, PACKED, ("SHA-256", hashlib.sha256(PACKED).hexdigest(), "0" * 64)),
        ({"size_bytes": len(PACKED) - 1}, PACKED, (str(len(PACKED) - 1), str(len(PACKED)))),
        ({"size_bytes": len(PACKED) + 1}, PACKED, (str(len(PACKED) + 1), str(len(PACKED)))),
    ],
    ids=[
        "truncated trailer",
        "truncated half",
        "damaged",
        "trailing junk",
        "no gzip",
        "raw as gz",
        "empty gz",
        "empty raw",
        "wrong digest",
        "longer than announced",
        "shorter than announced",
    ],
)
def test_what_is_not_what_it_claims_leaves_nothing_and_may_be_sent_again(doors, facts, content, words):
    uid = doors.announce(**facts)
    before = every_row()
    told(doors.put(uid, content), 400, "bad_content", field="content", names=(uid, *words))
    assert_as_if_nothing_had_come(doors, uid, before)
    if facts.get("format") == "raw" or not facts:
        again = doors.put(uid, RAW if facts else PACKED)
        assert again.status_code == 200, again.text


@pytest.mark.parametrize("disk_format", ["gz", "raw"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_connection_that_breaks_off_leaves_nothing_and_may_be_made_again(doors, disk_format, framing):
    """A raw disk has no end of its own: only the announced length tells that bytes are missing."""
    content = PACKED if disk_format == "gz" else RAW
    uid = doors.announce(format=disk_format)
    before = every_row()
    head = f"PUT {OBJECTS}/{uid}/content HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    head += f"Authorization: {doors.client.headers['Authorization']}\r\n"
    half = content[: len(content) // 2]
    if framing == "length":
        head += f"Content-Length: {len(content)}\r\n\r\n"
    else:
        head += f"Transfer-Encoding: chunked\r\n\r\n{len(content):x}\r\n"
    with socket.create_connection(("127.0.0.1", doors.web_port)) as line:
        line.sendall(head.encode() + half)
        await_state(uid, "creating")
    assert_as_if_nothing_had_come(doors, uid, before)
    assert doors.put(uid, content).status_code == 200


def test_while_one_uploads_another_is_refused(doors):
    uid = doors.announce()
    refusals = []

    def slowly() -> Iterator[bytes]:
        yield PACKED[:1000]
        await_state(uid, "creating")
        refusals.append(
            httpx.put(
                doors.client.base_url.join(f"{OBJECTS}/{uid}/content"),
                content=PACKED,
                headers=doors.client.headers,
                timeout=PATIENCE_S,
                trust_env=False,
            )
        )
        yield PACKED[1000:]

    assert doors.put(uid, slowly()).status_code == 200
    told(refusals[0], 409, "wrong_state", names=(uid, "creating"))
    assert (doors.storage / uid).read_bytes() == PACKED


def test_a_node_whose_files_server_is_away_gets_503_and_the_object_waits_again(doors):
    uid = doors.announce()
    before = every_row()
    doors.files.terminate()
    doors.files.wait(PATIENCE_S)
    told(doors.put(uid, PACKED), 503, "files_server", names=("hn-",))
    assert_as_if_nothing_had_come(doors, uid, before)


def test_an_image_waits_for_the_content(doors):
    uid = doors.announce()
    wish = {"name": "img", "backup_object": uid, "hypervisor": "kvm"}
    told(
        doors.client.post("/api/v1/images", json=wish),
        409,
        "wrong_state",
        field="backup_object",
        names=(uid, "pending"),
    )
    assert doors.put(uid, PACKED).status_code == 200
    answer = doors.client.post("/api/v1/images", json=wish)
    assert answer.status_code == 201
    body = answer.json()
    assert (body["state"], body["size_bytes"], body["stored_size_bytes"]) == ("available", len(RAW), len(PACKED))


def test_no_content_for_an_object_that_is_not_there(doors):
    answer = doors.put("bo-00000000", PACKED)
    told(answer, 404, "not_found", names=("bo-00000000",))
    assert doors.stored() == []
