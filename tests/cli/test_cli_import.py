"""Images come in from a file, a URL, or bytes that are there already."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys

import pytest

from tests.cli.objects import instance, operation
from tests.cli.scripted_api import DROP, TOKEN, Answer, problem

PENDING = {"id": "bo-aaaaaaaa", "state": "pending"}
AVAILABLE = {"id": "bo-aaaaaaaa", "state": "available"}
IMAGE = {"id": "wmi-11111111", "state": "available", "operation": None}
ABOUT = ("--name", "demo", "--hypervisor", "lxc", "--root-device", "partition:1")


@pytest.fixture
def storing_api(api):
    api.on("POST", "backup-objects", Answer(201, PENDING))
    api.on("PUT", "backup-objects/bo-aaaaaaaa/content", AVAILABLE)
    api.on("POST", "images", Answer(201, IMAGE))
    return api


def test_a_file_becomes_an_image(storing_api, vdc, tmp_path):
    file = tmp_path / "disk.img.gz"
    file.write_bytes(gzip.compress(b"disk" * 1000))
    ended = vdc("image", "import", str(file), *ABOUT, "--public", "--sha256", "AB" * 32)
    assert (ended.code, ended.out) == (0, "wmi-11111111 is available\n")
    assert [(request.method, request.path) for request in storing_api.requests] == [
        ("POST", "backup-objects"),
        ("PUT", "backup-objects/bo-aaaaaaaa/content"),
        ("POST", "images"),
    ]
    announced, sent, described = storing_api.requests
    size_bytes = file.stat().st_size
    assert announced.body == {"name": "demo", "format": "gz", "size_bytes": size_bytes, "sha256": "ab" * 32}
    assert sent.body_bytes == size_bytes
    assert described.body == {
        "name": "demo",
        "hypervisor": "lxc",
        "arch": "x86_64",
        "os_type": "linux",
        "init": "",
        "root_device": "partition:1",
        "is_public": True,
        "backup_object": "bo-aaaaaaaa",
    }


def test_a_large_file_is_streamed_in_little_memory(storing_api, tmp_path):
    file = tmp_path / "disk.raw"
    size_bytes = 512 * 1024**2
    with file.open("wb") as sparse:
        sparse.truncate(size_bytes)
    measured = (
        # ru_maxrss would count the peak of the process that it was started from
        "import sys\nfrom cli.main import main\ncode = main(sys.argv[1:])\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM:')))\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", measured, "image", "import", str(file), *ABOUT],
        env=os.environ | {"VDC_URL": storing_api.url, "VDC_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert storing_api.asked("PUT", "backup-objects/bo-aaaaaaaa/content")[0].body_bytes == size_bytes
    peak_kib = int(done.stdout.splitlines()[-1])
    assert peak_kib < 150 * 1024
    assert "uploaded disk.raw, 512.0 MiB" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.img", b"QFI\xfb" + bytes(100), "is qcow2"),
        ("a.img.xz", b"\xfd7zXZ\x00" + bytes(100), "is xz"),
        ("a.img.gz", bytes(100), "is not gzip"),
        ("empty.img", b"", "is empty"),
    ],
)
def test_a_file_that_no_node_could_use_is_refused_before_it_is_sent(storing_api, vdc, tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    ended = vdc("image", "import", str(tmp_path / name), *ABOUT)
    assert ended.code == 2
    assert told in ended.err
    assert storing_api.requests == []


def test_a_directory_is_no_image(storing_api, vdc, tmp_path):
    ended = vdc("image", "import", str(tmp_path), *ABOUT)
    assert ended.code == 2
    assert "cannot be read as an image" in ended.err


def test_a_refused_upload_tells_the_servers_reason(storing_api, vdc, tmp_path):
    (tmp_path / "a.img").write_bytes(b"x" * 5000)
    storing_api.on(
        "PUT", "backup-objects/bo-aaaaaaaa/content", problem(400, "The SHA-256 is ef…, not ab….", "wrong_checksum")
    )
    ended = vdc("image", "import", str(tmp_path / "a.img"), *ABOUT)
    assert ended.code == 1
    assert "The SHA-256 is ef…, not ab…." in ended.err
    assert storing_api.asked("POST", "images") == []


def test_a_whole_upload_whose_answer_was_lost_is_not_sent_again(storing_api, vdc, tmp_path):
    (tmp_path / "a.img").write_bytes(b"x" * 5000)
    storing_api.on("PUT", "backup-objects/bo-aaaaaaaa/content", DROP)
    storing_api.on("GET", "backup-objects/bo-aaaaaaaa", AVAILABLE)
    assert vdc("image", "import", str(tmp_path / "a.img"), *ABOUT).code == 0
    assert len(storing_api.asked("PUT", "backup-objects/bo-aaaaaaaa/content")) == 1


def test_a_broken_upload_says_that_it_is_not_whole(storing_api, vdc, tmp_path):
    (tmp_path / "a.img").write_bytes(b"x" * 5000)
    storing_api.on("PUT", "backup-objects/bo-aaaaaaaa/content", DROP)
    storing_api.on("GET", "backup-objects/bo-aaaaaaaa", PENDING)
    ended = vdc("image", "import", str(tmp_path / "a.img"), *ABOUT)
    assert ended.code == 1
    assert "has not arrived whole" in ended.err


def test_stored_bytes_are_offered_again_when_only_the_description_was_refused(storing_api, vdc, tmp_path):
    (tmp_path / "a.img").write_bytes(b"x" * 5000)
    storing_api.on("POST", "images", problem(400, "There is no such device.", field="root_device"), Answer(201, IMAGE))
    ended = vdc("image", "import", str(tmp_path / "a.img"), *ABOUT)
    assert ended.code == 1
    assert "vdc image import bo-aaaaaaaa" in ended.err
    assert vdc("image", "import", "bo-aaaaaaaa", *ABOUT).code == 0
    assert len(storing_api.asked("PUT", "backup-objects/bo-aaaaaaaa/content")) == 1


def test_a_url_is_fetched_by_an_operation(api, vdc):
    importing = {"id": "wmi-11111111", "state": "creating", "operation": operation("queued", verb="image.import")}
    api.on("POST", "images", Answer(202, importing))
    api.on("GET", "operations/op-7k2m9x4q", operation(verb="image.import"))
    api.on("GET", "images/wmi-11111111", IMAGE)
    ended = vdc("image", "import", "https://example.org/a/disk.raw.gz?x=1", *ABOUT, "--wait")
    assert (ended.code, ended.out) == (0, "wmi-11111111 is available\n")
    body = api.asked("POST", "images")[0].body
    assert (body["url"], body["format"]) == ("https://example.org/a/disk.raw.gz?x=1", "gz")
    assert "backup_object" not in body


def test_a_created_instance_gets_what_was_asked_for_and_nothing_else(api, vdc, tmp_path):
    api.on("POST", "instances", Answer(202, instance("scheduling", operation=operation("queued"))))
    (tmp_path / "setup").write_text("#!/bin/sh\n")
    ended = vdc(
        "instance", "create", "--image", "wmi-demolxc1", "--memory-mib", "512", "--volume-size", "1.5GiB",
        "--ssh-key", "ssh-a", "--ssh-key", "ssh-b", "--user-data", str(tmp_path / "setup"),
    )  # fmt: skip
    assert ended.code == 0
    assert ended.out == (
        "i-7d2kq9xw is scheduling at 10.77.0.12; begun as op-7k2m9x4q (vdc operation watch op-7k2m9x4q)\n"
    )
    assert api.requests[0].body == {
        "image": "wmi-demolxc1",
        "memory_mib": 512,
        "volume_size_bytes": 1536 * 1024**2,
        "ssh_keys": ["ssh-a", "ssh-b"],
        "user_data": "#!/bin/sh\n",
    }
