"""What happens while an image is copied: a killed worker, an owner who changes their mind. Outages: test_incident."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.live.counting_proxy import CountingProxy
from tests.live.data_center import DataCenter, Guest, until

pytestmark = pytest.mark.live


def stored(data_center: DataCenter, image: str) -> tuple[str, int]:
    row = data_center.api.get(f"images/{image}")
    return row["sha256"], row["stored_size_bytes"]


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def assert_whole(data_center: DataCenter, sha256: str, operation: str) -> None:
    """The entry in the image store is the guest image, and its receipt says so."""
    artefact = data_center.node_dir / "images" / f"{sha256}.raw"
    receipt = json.loads(artefact.with_name(f"{artefact.name}.receipt").read_text())
    assert receipt["facts"]["sha256"] == sha256
    assert receipt["operation"].startswith(operation)
    known = data_center.node_dir / "images" / f"{data_center.manifest['lxc']['sha256']}.raw"
    if not known.exists():
        packed = Path("build/guests") / data_center.manifest["lxc"]["file"]
        unpacked = subprocess.run(["gunzip", "-c", packed], check=True, capture_output=True).stdout
        assert digest_of(artefact) == hashlib.sha256(unpacked).hexdigest()
    else:
        assert digest_of(artefact) == digest_of(known)


def parts(data_center: DataCenter) -> list[str]:
    return [path.name for path in (data_center.node_dir / "images").glob("*.part")]


def outcomes(step: dict[str, Any]) -> list[str]:
    return [attempt["outcome"] for attempt in step["attempts"]]


def test_a_killed_worker_costs_an_attempt_and_not_the_instance(
    data_center: DataCenter, proxy: CountingProxy, fresh_image: str, short_lived: list[str]
):
    sha256, size_bytes = stored(data_center, fresh_image)
    hold = proxy.hold_at(size_bytes // 2)
    asked = data_center.create("lxc", "survivor", image=fresh_image)
    short_lived.append(asked["id"])
    operation = asked["operation"]["id"]
    assert hold.reached.wait(30)
    until(lambda: (_fetch(data_center, operation)["progress"] or {}).get("done"), "the copy to show on the step")
    data_center.kill("node-bulk")
    hold.release()

    story = data_center.done(operation)
    fetch = story["steps"][0]
    assert outcomes(fetch) == ["lost", "done"]
    assert "ended before the step did" in fetch["attempts"][0]["error"]
    workers = [attempt["worker"].rpartition("/")[0] for attempt in fetch["attempts"]]
    assert workers[0] != workers[1]
    assert "instance.launch.attempt_lost" in [event["name"] for event in story["events"]]
    assert proxy.sent[1:] == [size_bytes]
    assert_whole(data_center, sha256, operation)
    assert parts(data_center) == []
    until(data_center.guest(asked["id"]).answers, "the guest to answer")
    told = data_center.vdc("operation", "show", operation)
    assert told.returncode == 0
    assert "lost" in told.stdout


def _fetch(data_center: DataCenter, operation: str) -> dict[str, Any]:
    return data_center.operation(operation)["steps"][0]


def test_terminate_during_a_copy_is_accepted_at_once_and_leaves_nothing(
    data_center: DataCenter, proxy: CountingProxy, fresh_image: str
):
    before = _held(data_center)
    _, size_bytes = stored(data_center, fresh_image)
    hold = proxy.hold_at(size_bytes // 2)
    asked = data_center.create("lxc", "unwanted", image=fresh_image)
    assert hold.reached.wait(30)
    assert parts(data_center) != []
    launch = asked["operation"]["id"]
    operation = data_center.api.verb(asked["id"], "terminate")
    story = data_center.done(operation)

    superseded = data_center.operation(launch)
    assert superseded["state"] == "cancelled"
    assert superseded["superseded_by"] == operation
    assert outcomes(superseded["steps"][0]) == ["cancelled"]
    assert story["steps"][-1]["task"] == "volumes.discard_volume"
    row = data_center.instance(asked["id"])
    assert (row["state"], row["addresses"], row["allowed_verbs"]) == ("terminated", [], [])
    assert [volume["state"] for volume in row["volumes"]] == ["deleted"]
    hold.release()
    assert parts(data_center) == []
    assert _held(data_center) == before
    _assert_no_trace(data_center, asked["id"], row["volumes"][0]["id"])


def _held(data_center: DataCenter) -> tuple[Any, ...]:
    node = data_center.node()
    (network,) = data_center.api.items("networks")
    (slots,) = data_center.sql("SELECT count(*) FROM instances_instance WHERE slot IS NOT NULL OR room_held")
    used = tuple(node[key] for key in ("vcpus_used", "memory_mib_used", "disk_bytes_used"))
    return (*used, network["leases_used"], slots["count"])


def _assert_no_trace(data_center: DataCenter, instance: str, volume: str) -> None:
    """Neither files (but in the trash), nor loops, mounts or domains."""
    assert instance not in data_center.domains()
    found = [path for path in data_center.node_dir.rglob(f"*{volume}*") if "trash" not in path.parts]
    found += list(data_center.node_dir.rglob(f"*{instance}*"))
    assert found == []
    loops = subprocess.run(["losetup", "--list", "--noheadings"], check=True, capture_output=True, text=True).stdout
    assert volume not in loops
    mounts = Path(f"/proc/{data_center.pid('node-ops')}/mountinfo").read_text()
    assert instance not in mounts
    assert volume not in mounts


def test_a_terminated_guest_leaves_its_disk_in_the_trash_and_nothing_else(data_center: DataCenter):
    before = _held(data_center)
    for kind in ("lxc", "kvm"):
        asked = data_center.create(kind, f"short-{kind}")
        data_center.done(asked["operation"]["id"])
        row = data_center.instance(asked["id"])
        data_center.terminate(asked["id"])
        volume = row["volumes"][0]["id"]
        assert _held(data_center) == before
        _assert_no_trace(data_center, asked["id"], volume)
        trashed = list((data_center.node_dir / "trash").glob(f"{volume}.*/{volume}.*"))
        assert trashed, f"{volume} is not in the trash"


def test_a_worker_that_is_asked_to_end_hands_its_copy_back(
    data_center: DataCenter, proxy: CountingProxy, fresh_image: str, short_lived: list[str]
):
    """A restart for a new version of the program costs no instance and no failed attempt."""
    _, size_bytes = stored(data_center, fresh_image)
    hold = proxy.hold_at(size_bytes // 2)
    asked = data_center.create("lxc", "handed-back", image=fresh_image)
    short_lived.append(asked["id"])
    assert hold.reached.wait(30)
    data_center.kill("node-bulk", number=15)
    hold.release()
    story = data_center.done(asked["operation"]["id"])
    assert outcomes(story["steps"][0]) == ["stopped", "done"]
    assert parts(data_center) == []


@pytest.mark.parametrize("kind", ["kvm", "lxc"])
def test_a_forced_power_off_ends_a_graceful_one_that_hangs(
    data_center: DataCenter, guests: dict[str, Guest], short_lived: list[str], kind: str
):
    guest = data_center.launch(kind, f"deaf-{kind}")
    short_lived.append(guest.id)
    deafen(data_center, guest)
    graceful = data_center.api.verb(guest.id, "poweroff", timeout_s=600)
    until(lambda: _was_asked(data_center, graceful), "the guest to be asked")
    refused = data_center.api.ask("POST", f"instances/{guest.id}/poweroff", json={})
    assert (refused.status_code, refused.json()["operation"]) == (409, graceful)
    forced = data_center.api.verb(guest.id, "poweroff", force=True)
    story = data_center.done(forced)
    assert story["steps"][0]["result"]["observed"] == "halted"
    row = data_center.instance(guest.id)
    assert (row["state"], row["wanted"], row["operation"]) == ("halted", "halted", None)
    ended = data_center.operation(graceful)
    assert (ended["state"], ended["superseded_by"]) == ("cancelled", forced)
    assert "superseded" in ended["cancel_reason"]


def deafen(data_center: DataCenter, guest: Guest) -> None:
    """From now on the guest does not hear that it shall power off."""
    if guest.hypervisor == "kvm":
        guest.ssh("killall acpid")
    else:
        subprocess.run(["kill", "-STOP", str(data_center.guest_pid(guest))], check=True)


def _was_asked(data_center: DataCenter, operation: str) -> bool:
    step = data_center.operation(operation)["steps"][0]
    return step["state"] == "running" and step["progress"] is not None


def test_a_guest_that_does_not_hear_is_unplugged_when_its_time_is_over(data_center: DataCenter, short_lived: list[str]):
    guest = data_center.launch("lxc", "stubborn")
    short_lived.append(guest.id)
    deafen(data_center, guest)
    story = data_center.done(data_center.api.verb(guest.id, "poweroff", timeout_s=2))
    assert story["steps"][0]["result"]["reason"] == "unplugged after 2 s without an answer"
    assert data_center.instance(guest.id)["state"] == "halted"


def test_copies_leave_the_processors_to_what_somebody_waits_for(data_center: DataCenter):
    niceness = {
        program: os.getpriority(os.PRIO_PROCESS, data_center.pid(program))
        for program in ("node-bulk", "node-ops", "node-observer", "web", "postgres")
    }
    copies = niceness.pop("node-bulk")
    assert copies > max(niceness.values())
