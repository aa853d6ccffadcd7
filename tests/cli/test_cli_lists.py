"""Lists and sheets: tables for people, JSON for programs."""

from __future__ import annotations

import json

import pytest

from cli.render.columns import INSTANCES
from cli.render.table import table
from tests.cli.objects import GIB, SHA256, instance, operation

NODE = {
    "id": "hn-3f7h2k9s",
    "name": "demo",
    "status": "online",
    "scheduling_enabled": True,
    "arch": "x86_64",
    "hypervisors": ["kvm", "lxc"],
    "acceleration": "tcg",
    "warnings": ["KVM does not boot a Linux kernel here: guests are emulated, ten times slower"],
    "vcpus": 2,
    "vcpus_used": 1,
    "memory_mib": 24576,
    "memory_mib_used": 256,
    "disk_bytes": 100 * GIB,
    "disk_bytes_used": GIB,
    "heartbeat_at": "2026-03-01T13:02:11Z",
    "boot_id": "3f0d",
    "lanes": {
        "ops": {"round_trip_ms": 4.2, "answered_at": "2026-03-01T13:02:11Z", "silent_since": None},
        "bulk": {"round_trip_ms": None, "answered_at": None, "silent_since": "2026-03-01T13:02:11Z"},
    },
}
IMAGE = {
    "id": "wmi-demolxc1",
    "name": "demo",
    "state": "available",
    "error": None,
    "hypervisor": "lxc",
    "arch": "x86_64",
    "os_type": "linux",
    "init": "busybox",
    "root_device": "partition:1",
    "is_public": True,
    "size_bytes": 2 * GIB,
    "stored_size_bytes": 300 * 1024**2,
    "sha256": SHA256,
    "backup_object": "bo-aaaaaaaa",
    "account": "a-shpoolxx",
    "created_at": "2026-03-01T13:02:11Z",
    "operation": None,
    "allowed_verbs": [],
}
VOLUME = {
    "id": "vol-k2x8m4n1",
    "state": "attached",
    "size_bytes": 2 * GIB,
    "format": "raw",
    "instance": "i-7d2kq9xw",
    "boot": True,
    "image": "wmi-demolxc1",
    "node": "hn-3f7h2k9s",
    "error": None,
    "created_at": "2026-03-01T13:02:11Z",
    "allowed_verbs": [],
}
NETWORK = {
    "id": "nw-default1",
    "name": "default",
    "ipv4_network": "10.77.0.0/24",
    "gateway": "10.77.0.1",
    "leases_used": 2,
    "leases_free": 251,
}
KEY = {"id": "ssh-5m2p8q1r", "name": "me", "fingerprint": "SHA256:abc", "created_at": "2026-03-01T13:02:11Z"}


@pytest.mark.parametrize(
    ("noun", "path", "item", "words"),
    [
        ("instance", "instances", instance(), ["i-7d2kq9xw", "web", "running", "10.77.0.12", "256 MiB"]),
        ("image", "images", IMAGE, ["wmi-demolxc1", "available", "2.0 GiB", "300.0 MiB"]),
        ("operation", "operations", operation(), ["op-7k2m9x4q", "instance.launch", "i-7d2kq9xw", "done", "28.9 s"]),
        ("node", "nodes", NODE, ["hn-3f7h2k9s", "online", "kvm (tcg), lxc", "1 of 2", "256 MiB of 24 GiB"]),
        ("volume", "volumes", VOLUME, ["vol-k2x8m4n1", "attached", "2.0 GiB", "i-7d2kq9xw"]),
        ("network", "networks", NETWORK, ["nw-default1", "10.77.0.0/24", "251"]),
        ("key", "ssh-key-pairs", KEY, ["ssh-5m2p8q1r", "SHA256:abc"]),
    ],
)
def test_each_noun_has_a_list_for_people_and_one_for_programs(api, vdc, noun, path, item, words):
    api.on("GET", path, {"items": [item], "next": None})
    ended = vdc(noun, "list")
    assert ended.code == 0
    row = ended.out.splitlines()[1]
    for expected in words:
        assert expected in row
    assert "\x1b" not in ended.out
    assert json.loads(vdc(noun, "list", "-o", "json").out) == [item]


@pytest.mark.parametrize(
    ("noun", "path", "item", "words"),
    [
        ("image", "images/wmi-demolxc1", IMAGE, [SHA256, "partition:1", "stored as 300.0 MiB"]),
        (
            "node",
            "nodes/hn-3f7h2k9s",
            NODE,
            ["KVM does not boot", "256 MiB of 24 GiB used", "answers in 4.2 ms", "not answered since"],
        ),
        ("volume", "volumes/vol-k2x8m4n1", VOLUME, ["2.0 GiB (raw)", "boots from it"]),
    ],
)
def test_each_noun_has_a_sheet(api, vdc, noun, path, item, words):
    api.on("GET", path, item)
    ended = vdc(noun, "show", item["id"])
    assert ended.code == 0
    for expected in words:
        assert expected in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80
    assert json.loads(vdc(noun, "show", item["id"], "-o", "json").out) == item


def test_an_instance_shows_what_is_believed_what_is_seen_and_what_went_wrong(api, vdc):
    error = {"message": "the disk is full", "advice": "make room", "operation": "op-7k2m9x4q"}
    observed = {"state": "unknown", "reason": "node silent", "at": "2026-03-01T13:02:39.000Z"}
    api.on("GET", "instances/i-7d2kq9xw", instance("error", error=error, observed=observed, operation="op-22222222"))
    out = vdc("instance", "show", "i-7d2kq9xw").out
    for expected in (
        "state       error",
        "observed    unknown (node silent), seen ",
        "wanted      running",
        "error       the disk is full",
        "vdc operation show op-7k2m9x4q",
        "vdc operation watch op-22222222",
        "addresses   10.77.0.12",
        "vol-k2x8m4n1 2.0 GiB attached, boots from it",
        "allowed now poweroff, terminate",
    ):
        assert expected in out


def test_pages_are_followed_up_to_the_limit(api, vdc):
    def page(request):
        first = int(request.query.get("after", 0))
        items = [instance(id=f"i-{number}") for number in range(first, first + int(request.query["limit"]))]
        from tests.cli.scripted_api import Answer

        return Answer(
            body={"items": items[: 450 - first], "next": str(first + len(items)) if first + 200 < 450 else None}
        )

    api.on("GET", "instances", page)
    some = vdc("instance", "list", "--limit", "250", "-o", "json")
    assert [item["id"] for item in json.loads(some.out)] == [f"i-{number}" for number in range(250)]
    assert "--limit 0 lists all" in some.err
    everything = vdc("instance", "list", "--limit", "0", "-o", "json")
    assert len(json.loads(everything.out)) == 450
    assert everything.err == ""


def test_operations_are_filtered_by_the_server(api, vdc):
    api.on("GET", "operations", {"items": [], "next": None})
    assert vdc("operation", "list", "--subject", "i-7d2kq9xw", "--state", "failed").code == 0
    query = api.asked("GET", "operations")[0].query
    assert (query["subject"], query["state"]) == ("i-7d2kq9xw", "failed")


def test_a_narrow_terminal_loses_columns_and_never_parts_of_an_id():
    long_id = "i-" + "x" * 40
    lines, left_out = table(INSTANCES, [instance(id=long_id)], width=72)
    assert left_out == ["IMAGE", "NODE", "VCPUS", "MEMORY", "CREATED"]
    assert long_id in lines[1].plain
    assert max(len(line.plain) for line in lines) <= 80


def test_control_characters_in_names_are_shown_and_not_obeyed(api, vdc):
    api.on("GET", "instances", {"items": [instance(name="a\x1b]0;owned\x07b\nc\u202e")], "next": None})
    out = vdc("instance", "list").out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "\u202e" not in out
    assert len(out.splitlines()) == 2


def test_the_console_log_goes_into_a_pipe_byte_by_byte(api, vdc):
    from tests.cli.scripted_api import Answer

    api.on("GET", "instances/i-7d2kq9xw/console-log", Answer(200, b"Linux\x1b[0m up\r\n", content_type="text/plain"))
    ended = vdc("instance", "console-log", "i-7d2kq9xw", "--last-bytes", "100")
    assert ended.out.encode() == b"Linux\x1b[0m up\r\n"
    assert api.requests[0].query == {"last_bytes": "100"}
