"""From symptom to cause in a living data center: `vdc explain`, and one id from the HTTP answer to the libvirt call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.live.data_center import DataCenter, until

pytestmark = pytest.mark.live

OURS = ("web", "files", "control", "sweep", "node-observer", "node-ops", "node-bulk")


def lines_of(data_center: DataCenter, program: str) -> list[dict[str, Any]]:
    """What a process logged; a last line that is being written is left out."""
    whole, _, _ = data_center.stack.log(program).read_text(errors="replace").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def test_a_launch_from_an_image_with_a_wrong_digest_is_explained_on_one_page(
    data_center: DataCenter, fresh_image: str, short_lived: list[str]
):
    stored = data_center.api.get(f"images/{fresh_image}")["backup_object"]
    data_center.sql("UPDATE volumes_backupobject SET sha256 = %s WHERE uid = %s RETURNING uid", "a" * 64, stored)
    asked = data_center.api.post("instances", {"image": fresh_image, "hostname": "doomed", "memory_mib": 64})
    uid, node = asked["id"], data_center.node()["id"]
    short_lived.append(uid)
    data_center.ended(asked["operation"]["id"])

    told = data_center.vdc("explain", uid)
    assert told.returncode == 0, told.stderr
    page = " ".join(told.stdout.split())
    assert page.startswith(f"{uid} is in error: volumes.fetch_image failed on {node}: The ")
    for words in (
        "but the record says aaaa",
        "Next: The object was changed or the checksum is wrong",
        f"request {asked['operation']['request_id']}",
        "fetching the image",
        f"/storage/{stored}",
        "the image was copied stored_bytes=",
        "1 vCPU and 64 MiB of memory on",
        "the address ",
        f"vdc instance retry {uid}: goes on",
        f"vdc instance terminate {uid}: removes",
    ):
        assert words in page, told.stdout
    (volume,) = data_center.instance(uid)["volumes"]
    for other in (volume["id"], asked["operation"]["id"]):
        explained = data_center.vdc("explain", other)
        assert "volumes.fetch_image failed" in " ".join(explained.stdout.split()), explained.stdout + explained.stderr


def test_the_id_of_a_request_is_found_in_the_lane_at_the_libvirt_call(data_center: DataCenter, short_lived: list[str]):
    answer = data_center.api.ask(
        "POST", "instances", json={"image": data_center.images["lxc"], "hostname": "traced", "memory_mib": 64}
    )
    asked, request = answer.json(), answer.headers["X-Request-Id"]
    short_lived.append(asked["id"])
    story = data_center.done(asked["operation"]["id"])
    assert story["request_id"] == request
    start = next(step for step in story["steps"] if step["task"] == "instances.start_guest")
    assert any(f"libvirt createXML {asked['id']}" in line for line in start["log"]), start["log"]

    def said() -> list[dict[str, Any]]:
        return [line for line in lines_of(data_center, "node-ops") if line.get("request_id") == request]

    until(
        lambda: [line for line in said() if line["event"] == "step done" and line["step"] == start["task"]], "its end"
    )
    (call,) = [line for line in said() if line["event"].startswith("libvirt createXML")]
    assert call["ms"] >= 0
    assert (call["operation"], call["step"], call["subject"]) == (story["id"], start["task"], asked["id"])
    assert (call["process"], call["lane"], call["node"]) == ("node-ops", "ops", data_center.node()["id"])
    (door,) = [line for line in lines_of(data_center, "web") if line.get("request_id") == request]
    assert (door["event"], door["method"], door["path"]) == ("request", "POST", "/api/v1/instances")


def test_every_line_of_every_process_is_json_and_names_its_process(data_center: DataCenter):
    for program in OURS:
        lines = lines_of(data_center, program)
        assert lines, program
        assert {line["process"] for line in lines} == {program}
        assert all(line["timestamp"] and line["level"] and line["event"] for line in lines)


def test_nothing_of_a_request_that_is_secret_is_logged(data_center: DataCenter, short_lived: list[str]):
    secret = "open-sesame-7f3a"
    data = {"image": data_center.images["lxc"], "hostname": "secretive", "memory_mib": 64, "user_data": f"#!{secret}"}
    asked = data_center.api.post("instances", data)
    short_lived.append(asked["id"])
    story = data_center.done(asked["operation"]["id"])
    facts = data_center.node_row()
    for program in OURS:
        text = data_center.stack.log(program).read_text(errors="replace")
        assert secret not in text, program
        assert facts["files_token"] not in text, program
    assert secret not in json.dumps(story)
    assert secret not in data_center.vdc("explain", asked["id"], "-o", "json").stdout
