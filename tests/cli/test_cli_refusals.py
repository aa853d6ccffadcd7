"""What people read when the API says no, or says nothing."""

from __future__ import annotations

import socket

import pytest

from tests.cli.objects import instance
from tests.cli.scripted_api import DROP, Answer, problem


def test_a_busy_instance_names_the_operation_and_how_to_watch_it(api, vdc):
    api.on(
        "POST",
        "instances/i-7d2kq9xw/poweroff",
        problem(
            409, "i-7d2kq9xw is busy.", "busy", operation="op-11111111", state="starting", allowed_verbs=["terminate"]
        ),
    )
    ended = vdc("instance", "poweroff", "i-7d2kq9xw")
    assert ended.code == 1
    assert ended.err.splitlines() == [
        "vdc: i-7d2kq9xw is busy.",
        "     Busy with op-11111111 (vdc operation watch op-11111111).",
        "     Its state is starting; allowed now: terminate.",
    ]


def test_a_refused_field_is_named(api, vdc):
    api.on("POST", "instances", problem(400, "At most 512 are allowed.", "too_many", field="vcpus"))
    ended = vdc("instance", "create", "--image", "wmi-demolxc1", "--vcpus", "9999")
    assert ended.code == 1
    assert ended.err == "vdc: At most 512 are allowed. (field vcpus)\n"


def test_a_get_is_tried_again_over_broken_lines_and_503(api, vdc):
    api.on(
        "GET",
        "instances",
        DROP,
        problem(503, "The database does not answer.", "database_away", headers={"Retry-After": "1"}),
        {"items": [instance()], "next": None},
    )
    ended = vdc("instance", "list")
    assert ended.code == 0
    assert "i-7d2kq9xw" in ended.out
    assert ended.err.count("trying again") == 2
    assert "The database does not answer; trying again (3 of 3)" in ended.err


def test_a_lasting_503_ends_with_a_sentence_and_the_servers_own_wait(api, vdc):
    api.on("GET", "instances", problem(503, "The database does not answer.", headers={"Retry-After": "7"}))
    ended = vdc("instance", "list")
    assert ended.code == 1
    assert "cannot answer now: The database does not answer." in ended.err
    assert "Try again in 7 s" in ended.err
    assert len(api.asked("GET", "instances")) == 3


def test_a_post_is_never_sent_twice(api, vdc):
    api.on("POST", "instances", DROP)
    ended = vdc("instance", "create", "--image", "wmi-demolxc1")
    assert ended.code == 1
    assert len(api.asked("POST", "instances")) == 1
    assert "not known" in ended.err
    assert "vdc operation list" in ended.err


def test_a_refused_connection_says_what_to_check(vdc, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("VDC_URL", url)
    monkeypatch.setenv("VDC_TOKEN", "x")
    monkeypatch.setattr("cli.client.PAUSES_S", (0.01,))
    ended = vdc("node", "list")
    assert ended.code == 1
    assert f"No connection to {url}" in ended.err
    assert "connection refused" in ended.err
    assert "make status" in ended.err


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>hello</html>", content_type="text/html"),
        Answer(404, b"<html>not here</html>", content_type="text/html"),
        Answer(302, b"", headers={"Location": "http://127.0.0.1:1/"}),
        Answer(200, [1, 2]),
        Answer(200, {"unexpected": True}),
    ],
)
def test_a_server_that_is_no_api_of_ours_gives_a_sentence(api, vdc, answer):
    api.on("GET", "instances", answer)
    ended = vdc("instance", "list")
    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert ended.err.startswith("vdc: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["instance", "show"],
        ["instance", "show", "../tokens"],
        ["instance", "create"],
        ["instance", "create", "--image", "wmi-a", "--volume-size", "much"],
        ["instance", "create", "--image", "wmi-a", "--user-data", "/does/not/exist"],
        ["instance", "fly", "i-7d2kq9xw"],
        ["instance", "list", "-o", "xml"],
        ["image", "import", "/does/not/exist", "--name", "x", "--hypervisor", "kvm"],
        ["image", "import", "ftp://example.org/x.gz", "--name", "x", "--hypervisor", "kvm"],
        ["image", "import", "http://example.org/x", "--name", "x", "--hypervisor", "kvm"],
        ["image", "import", "x.gz", "--name", "x", "--hypervisor", "vmware"],
        ["image", "import", "x.gz", "--name", "x", "--hypervisor", "kvm", "--sha256", "abc"],
        ["key", "import", "/does/not/exist", "--name", "x"],
    ],
)
def test_wrong_use_ends_with_2_before_anything_is_asked(api, vdc, arguments):
    ended = vdc(*arguments)
    assert ended.code == 2
    assert ended.err
    assert api.requests == []
