"""The files server under the real gunicorn: objects come back as they went in, and half uploads leave nothing."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from hypervisor import files_server

TOKEN = "the-token-of-the-files-server"
BODY = bytes(range(256)) * 8192
ROOT = Path(files_server.__file__).parents[1]


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stack")
    (path / "stack.json").write_text(json.dumps({"files_token": TOKEN}))
    (path / "storage").mkdir()
    (path / "node" / "consoles").mkdir(parents=True)
    return path


@pytest.fixture(scope="module")
def line(state_dir: Path) -> Iterator[Path]:
    """The unix socket on which a server of its own listens."""
    path = state_dir / "line"
    command = [sys.executable, "-m", "gunicorn", f'hypervisor.files_server:FilesServer("{state_dir}")']
    command += ["-k", "gthread", "--threads", "4", "-b", f"unix:{path}", "--no-control-socket"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not path.exists():
            assert server.poll() is None, "gunicorn did not start"
            assert time.monotonic() < deadline, "gunicorn did not listen within a minute"
            time.sleep(0.02)
        yield path
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def client(line: Path, state_dir: Path) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(line))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(transport=transport, base_url="http://files", headers=headers, timeout=30) as opened:
        yield opened
    for path in (state_dir / "storage").iterdir():
        path.unlink()


def stored(state_dir: Path) -> list[str]:
    return sorted(path.name for path in (state_dir / "storage").iterdir())


def test_an_object_comes_back_as_it_went_in(client: httpx.Client, state_dir: Path) -> None:
    answer = client.put("/storage/bo-a.gz", content=BODY)
    assert answer.status_code == 201
    assert answer.json() == {"key": "bo-a.gz", "sha256": hashlib.sha256(BODY).hexdigest(), "size_bytes": len(BODY)}
    assert client.get("/storage/bo-a.gz").content == BODY
    assert stored(state_dir) == ["bo-a.gz"]
    assert client.put("/storage/bo-a.gz", content=b"other").status_code == 200
    assert client.get("/storage/bo-a.gz").content == b"other"


def test_a_chunked_upload_is_taken(client: httpx.Client) -> None:
    answer = client.put("/storage/bo-a", content=iter([BODY[:1000], BODY[1000:]]))
    assert answer.json()["size_bytes"] == len(BODY)
    assert client.get("/storage/bo-a").content == BODY


def test_an_empty_object_is_an_object(client: httpx.Client) -> None:
    assert client.put("/storage/bo-a", content=b"").json()["size_bytes"] == 0
    assert client.get("/storage/bo-a").content == b""


def test_head_tells_length_and_validators(client: httpx.Client) -> None:
    client.put("/storage/bo-a", content=BODY)
    answer = client.head("/storage/bo-a")
    assert answer.headers["Content-Length"] == str(len(BODY))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Last-Modified"].endswith("GMT")
    assert answer.content == b""
    same = client.get("/storage/bo-a", headers={"If-None-Match": answer.headers["ETag"]})
    assert same.status_code == 304


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=1000000-", 1_000_000, len(BODY)),
        ("bytes=-5", len(BODY) - 5, len(BODY)),
        ("bytes=-99999999", 0, len(BODY)),
        ("bytes=5-99999999", 5, len(BODY)),
    ],
)
def test_a_range_gets_its_part(client: httpx.Client, asked: str, start: int, end: int) -> None:
    client.put("/storage/bo-a", content=BODY)
    answer = client.get("/storage/bo-a", headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(BODY)}"
    assert answer.content == BODY[start:end]


@pytest.mark.parametrize("asked", ["bytes=1-0", "bytes=0-1,5-6", "bytes=-", "lines=1-2", "bytes=" + "9" * 5000])
def test_what_is_no_single_range_gets_the_whole(client: httpx.Client, asked: str) -> None:
    client.put("/storage/bo-a", content=BODY)
    answer = client.get("/storage/bo-a", headers={"Range": asked})
    assert answer.status_code == 200
    assert answer.content == BODY


def test_a_range_beyond_the_end_says_where_the_end_is(client: httpx.Client) -> None:
    client.put("/storage/bo-a", content=b"12345")
    answer = client.get("/storage/bo-a", headers={"Range": "bytes=5-"})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == "bytes */5"


def test_a_range_of_an_object_that_changed_gets_the_whole(client: httpx.Client) -> None:
    client.put("/storage/bo-a", content=b"first")
    etag = client.head("/storage/bo-a").headers["ETag"]
    headers = {"Range": "bytes=1-2", "If-Range": etag}
    assert client.get("/storage/bo-a", headers=headers).content == b"ir"
    client.put("/storage/bo-a", content=b"second one")
    assert client.get("/storage/bo-a", headers=headers).content == b"second one"


def test_a_deleted_object_is_gone(client: httpx.Client, state_dir: Path) -> None:
    client.put("/storage/bo-a", content=BODY)
    assert client.delete("/storage/bo-a").status_code == 204
    assert stored(state_dir) == []
    for method in ("GET", "HEAD", "DELETE"):
        assert client.request(method, "/storage/bo-a").status_code == 404


def test_a_receipt_goes_with_the_object_that_it_speaks_of(client: httpx.Client, state_dir: Path) -> None:
    receipt = state_dir / "storage" / "bo-a.receipt"
    for method in ("PUT", "DELETE"):
        client.put("/storage/bo-a", content=BODY)
        receipt.write_text("{}")
        client.request(method, "/storage/bo-a", content=b"new")
        assert not receipt.exists()


@pytest.mark.parametrize("token", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe9"])
def test_a_wrong_token_gets_nothing(client: httpx.Client, state_dir: Path, token: str) -> None:
    (state_dir / "storage" / "bo-a").write_bytes(BODY)
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = client.request(method, "/storage/bo-a", headers={"Authorization": token.encode("latin-1")})
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert (state_dir / "storage" / "bo-a").read_bytes() == BODY


@pytest.mark.parametrize(
    "path",
    [
        "/storage/..%2fstack.json",
        "/storage/%2e%2e/stack.json",
        "/storage/../stack.json",
        "/storage/.hidden",
        "/storage/",
        "/storage",
        "/storage/a/b",
        "/storage//a",
        "/storage/a%00b",
        "/storage/a%0a",
        "/consoles/..%2f..%2fstack",
        "/node/consoles/x",
        "/",
        "/stack.json",
    ],
)
def test_no_path_leads_out_of_the_storage(line: Path, path: str) -> None:
    # A plain socket: clients tidy paths up.
    with closing(socket.socket(socket.AF_UNIX)) as plain:
        plain.connect(str(line))
        request = f"GET {path} HTTP/1.1\r\nHost: files\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
        plain.sendall(request.encode())
        answer = b""
        while chunk := plain.recv(65536):
            answer += chunk
    assert answer.split()[1] in (b"404", b"400")
    assert TOKEN.encode() not in answer


def test_a_link_in_the_storage_is_not_followed(client: httpx.Client, state_dir: Path) -> None:
    (state_dir / "storage" / "bo-a").symlink_to(state_dir / "stack.json")
    assert client.get("/storage/bo-a").status_code == 404


def test_other_methods_are_told_what_is_possible(client: httpx.Client) -> None:
    answer = client.post("/storage/bo-a", content=b"x")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD, PUT, DELETE"
    assert client.put("/consoles/i-a", content=b"x").status_code == 405


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_an_upload_that_is_cut_leaves_nothing(client: httpx.Client, line: Path, state_dir: Path, framing: str) -> None:
    (state_dir / "storage" / "bo-a").write_bytes(b"what was there before")
    with closing(socket.socket(socket.AF_UNIX)) as plain:
        plain.connect(str(line))
        head = f"PUT /storage/bo-a HTTP/1.1\r\nHost: files\r\nAuthorization: Bearer {TOKEN}\r\n{framing}\r\n\r\n"
        plain.sendall(head.encode())
        plain.sendall(b"1000\r\n" + bytes(0x1000) + b"\r\n1000\r\nhalf")
        deadline = time.monotonic() + 30
        while len(stored(state_dir)) < 2:  # the server has begun to write
            assert time.monotonic() < deadline
            time.sleep(0.01)
    while len(stored(state_dir)) > 1:
        assert time.monotonic() < deadline, stored(state_dir)
        time.sleep(0.01)
    assert client.get("/storage/bo-a").content == b"what was there before"


def test_an_upload_that_a_killed_server_left_is_removed_by_the_next(client: httpx.Client, state_dir: Path) -> None:
    old = state_dir / "storage" / ".bo-x.0123.part"
    young = state_dir / "storage" / ".bo-y.0123.part"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (0, 0))
    client.put("/storage/bo-a", content=b"x")
    assert stored(state_dir) == [young.name, "bo-a"]


def test_an_upload_bigger_than_the_disk_is_refused_in_words(line: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as plain:
        plain.connect(str(line))
        head = f"PUT /storage/bo-a HTTP/1.1\r\nHost: files\r\nAuthorization: Bearer {TOKEN}\r\n"
        plain.sendall(f"{head}Content-Length: {2**60}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := plain.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 507")
    assert b"has no room for 'bo-a'" in answer


def test_a_disk_that_fills_up_in_the_middle_answers_507(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "vdc-test", str(place)], check=True)
    try:
        (place / "stack.json").write_text(json.dumps({"files_token": TOKEN}))
        transport = httpx.WSGITransport(app=files_server.FilesServer(place))
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Length": str(4 * 1024**2)}
        monkeypatch.setattr(files_server, "free_bytes", lambda directory: 10**12)
        with httpx.Client(transport=transport, base_url="http://files", headers=headers) as client:
            answer = client.put("/storage/bo-a", content=bytes(4 * 1024**2))
        assert answer.status_code == 507
        assert str(place) in answer.json()["detail"]
        assert stored(place) == []
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_console_gives_its_last_bytes(client: httpx.Client, state_dir: Path) -> None:
    log = state_dir / "node" / "consoles" / "i-a.log"
    log.write_bytes(b"".join(b"line %d\n" % number for number in range(20_000)))
    assert client.get("/consoles/i-a?last_bytes=11").content == b"line 19999\n"
    assert len(client.get("/consoles/i-a").content) == 65_536
    assert client.get("/consoles/i-a").headers["Content-Type"].startswith("text/plain")


def test_a_console_that_was_just_rotated_goes_on_from_its_predecessor(client: httpx.Client, state_dir: Path) -> None:
    log = state_dir / "node" / "consoles" / "i-b.log"
    log.write_bytes(b"login: ")
    log.with_name("i-b.log.0").write_bytes(b"booting\n")
    assert client.get("/consoles/i-b").content == b"booting\nlogin: "
    assert client.get("/consoles/i-b?last_bytes=9").content == b"g\nlogin: "
    assert client.get("/consoles/i-b?last_bytes=3").content == b"n: "


@pytest.mark.parametrize("count", ["-1", "x", "1e3", "9" * 5000])
def test_a_number_of_bytes_that_is_none_is_refused(client: httpx.Client, state_dir: Path, count: str) -> None:
    (state_dir / "node" / "consoles" / "i-a.log").write_bytes(b"x")
    assert client.get(f"/consoles/i-a?last_bytes={count}").status_code in (400, 414)


def test_a_console_that_is_not_there_is_not_found(client: httpx.Client) -> None:
    assert client.get("/consoles/i-none").status_code == 404


def test_a_missing_stack_file_is_said(tmp_path: Path) -> None:
    transport = httpx.WSGITransport(app=files_server.FilesServer(tmp_path))
    with httpx.Client(transport=transport, base_url="http://files") as client:
        answer = client.get("/storage/bo-a")
    assert answer.status_code == 503
    assert "stack file" in answer.json()["detail"]
