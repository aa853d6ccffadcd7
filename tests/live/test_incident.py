"""The story that must never repeat: the copy is whole, and nobody listens to the word of it.

`make test` replays it with outages of 20 s and a lease of 3 s, `make incident` with 200 s and times as in production.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from hypervisor.drivers.fake_world import FakeFaults, FakeWorld
from tests.live.conftest import own_data_center
from tests.live.counting_proxy import CountingProxy
from tests.live.data_center import GUEST_IMAGES, DataCenter, Guest, until
from tests.live.outages import (
    MUTE_BOTH,
    MUTE_DATABASE,
    MUTE_REDIS,
    REFUSING_DATABASE,
    STOPPED_DATABASE,
    STOPPED_WEB,
    Outage,
)

pytestmark = pytest.mark.live

ANSWER_WITHIN_S = 8  # six are promised
SEEN_LATE_S = 8  # between the end of the copy and what the story says to have waited from
FAKE_NODES = 5
LAUNCHES = 50
BELLS = 10  # so many are lost at least


@pytest.fixture(scope="module")
def data_center(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataCenter]:
    """One that lives faster than those of the other tests, and has some fake nodes."""
    scratch, time_scale = tmp_path_factory.mktemp("incident"), request.config.getoption("--time-scale")
    yield from own_data_center(scratch, mark="i", time_scale=time_scale, fake_nodes=FAKE_NODES)


@pytest.fixture
def outage_s(request: pytest.FixtureRequest) -> float:
    return request.config.getoption("--outage-s")


@pytest.fixture(scope="module")
def bystander(data_center: DataCenter) -> Guest:
    """Runs through all outages."""
    return data_center.launch("lxc", "bystander")


@pytest.fixture(scope="module")
def _sleeper(data_center: DataCenter) -> Guest:
    return data_center.launch("lxc", "sleeper")


@pytest.fixture
def sleeper(data_center: DataCenter, _sleeper: Guest) -> Guest:
    """Powers itself off in each of them."""
    if data_center.instance(_sleeper.id)["state"] == "halted":
        data_center.done(data_center.api.verb(_sleeper.id, "poweron"))
    until(_sleeper.answers, "the sleeper to answer")
    return _sleeper


@pytest.mark.parametrize(
    ("outage", "kind"),
    [
        (MUTE_DATABASE, "kvm"),
        (STOPPED_DATABASE, "lxc"),
        (REFUSING_DATABASE, "lxc"),
        (MUTE_REDIS, "lxc"),
        (MUTE_BOTH, "lxc"),
        (STOPPED_WEB, "kvm"),
    ],
    ids=str,
)
def test_an_outage_that_begins_as_the_copy_ends_delays_and_destroys_nothing(
    data_center: DataCenter,
    bystander: Guest,
    sleeper: Guest,
    short_lived: list[str],
    outage: Outage,
    kind: str,
    outage_s: float,
):
    image = _fresh_image(data_center, kind)
    sha256, size_bytes = image["sha256"], image["stored_size_bytes"]
    since = datetime.now(UTC)
    runs = _life(data_center, bystander)
    with (
        CountingProxy(data_center.node_row()["files_url"]) as proxy,
        data_center.storage_behind(proxy.url),
    ):
        hold = proxy.hold_at(size_bytes - 1)
        asked = data_center.create(kind, "patient", image=image["id"])
        short_lived.append(asked["id"])
        assert hold.reached.wait(60)
        sleeper_pid = data_center.guest_pid(sleeper)
        with outage.within(data_center):
            begun = time.monotonic()
            hold.release()
            receipt = data_center.node_dir / "images" / f"{sha256}.raw.receipt"
            until(receipt.exists, "the receipt of the copy")
            seen_whole = time.monotonic()
            sleeper.ssh_and_leave("poweroff")
            until(lambda: not os.path.exists(f"/proc/{sleeper_pid}/exe"), "the sleeper to end")  # noqa: PTH110
            while time.monotonic() < begun + outage_s:
                assert bystander.answers()
                assert _life(data_center, bystander) == runs
                _api_says(data_center, outage)
                time.sleep(1)
            known_for_s = time.monotonic() - seen_whole
        story = until(lambda: _story(data_center, asked["operation"]["id"]), "the launch to end")

    _went_through_in_one_go(story)
    _tells_the_wait(story, outage, known_for_s)
    assert proxy.sent == [size_bytes], "the image was transferred exactly once"
    _assert_whole(data_center, kind, sha256, story["id"])
    until(data_center.guest(asked["id"]).answers, "the guest to answer")
    _untouched(data_center, bystander, runs, since)
    _what_happened_meanwhile_is_known(data_center, sleeper, since)
    print(f"{outage}, {kind}, {outage_s:g} s: the launch ended {_after(story, since):.1f} s after it was asked for")


def _fresh_image(data_center: DataCenter, kind: str) -> dict[str, Any]:
    mark = int.from_bytes(os.urandom(4), "little")
    return data_center.upload_guest_image(kind, data_center.other_guest_image(kind, mark))


def _life(data_center: DataCenter, guest: Guest) -> tuple[int, str]:
    """The process that is the guest, and when it began: another start would be another life."""
    pid = data_center.guest_pid(guest)
    return pid, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def _api_says(data_center: DataCenter, outage: Outage) -> None:
    asked_at = time.monotonic()
    headers = {"Authorization": f"Bearer {data_center.api.token}"}
    try:
        answer = httpx.get(f"{data_center.url}/api/v1/instances", headers=headers, timeout=30, trust_env=False)
    except httpx.ConnectError:
        assert outage.answer is None
        return
    assert answer.status_code == outage.answer, answer.text
    if outage.of_database:
        assert int(answer.headers["Retry-After"]) >= 1
        assert time.monotonic() - asked_at < ANSWER_WITHIN_S


def _story(data_center: DataCenter, operation: str) -> dict[str, Any] | None:
    """The story when the operation has ended. A web that is just coming back refuses or says 503."""
    try:
        answer = data_center.api.ask("GET", f"operations/{operation}")
    except httpx.TransportError:
        return None
    assert answer.status_code in (200, 503), answer.text
    return answer.json() if answer.status_code == 200 and answer.json()["ended_at"] else None


def _went_through_in_one_go(story: dict[str, Any]) -> None:
    assert story["state"] == "done", json.dumps(story, indent=1)
    for step in story["steps"]:
        assert [(one["outcome"], one["error"]) for one in step["attempts"]] == [("done", None)], json.dumps(step)
    names = {event["name"].rpartition(".")[2] for event in story["events"]}
    assert not names & {"retry", "attempt_lost", "step_failed", "cancel"}, names


def _tells_the_wait(story: dict[str, Any], outage: Outage, known_for_s: float) -> None:
    """Of the result for the database, or of the next lane for its bell."""
    said = " ".join(event["message"] for event in story["events"] if event["name"] == "instance.launch.waited")
    if outage.of_database:
        waited_s = re.search(
            r"the end of volumes.fetch_image was known ([\d.]+) s before the database could be told", said
        )
    elif outage is MUTE_REDIS:
        waited_s = re.search(r"networks.plug waited ([\d.]+) s for a free worker of the lane ops on node", said)
    else:
        assert "before the database could be told" not in said
        return
    assert waited_s is not None, json.dumps(story, indent=1)
    assert float(waited_s[1]) >= known_for_s - SEEN_LATE_S


def _assert_whole(data_center: DataCenter, kind: str, sha256: str, operation: str) -> None:
    """The entry in the image store is the guest image, and its receipt says so."""
    artefact = data_center.node_dir / "images" / f"{sha256}.raw"
    receipt = json.loads(artefact.with_name(f"{artefact.name}.receipt").read_text())
    assert receipt["facts"]["sha256"] == sha256
    assert receipt["operation"].startswith(operation)
    packed = GUEST_IMAGES / data_center.manifest[kind]["file"]
    unpacked = subprocess.run(["gunzip", "-c", packed], check=True, capture_output=True).stdout
    with artefact.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == hashlib.sha256(unpacked).hexdigest()
    assert list(artefact.parent.glob("*.part")) == []


def _untouched(data_center: DataCenter, guest: Guest, runs: tuple[int, str], since: datetime) -> None:
    assert guest.answers()
    assert _life(data_center, guest) == runs
    row = data_center.instance(guest.id)
    assert (row["state"], row["wanted"], row["observed"]["state"]) == ("running", "running", "running")
    node = data_center.node()
    assert node["status"] == "online"
    for subject in (guest.id, node["id"]):
        assert [event for event in data_center.events(subject) if event["created_at"] > since] == []


def _what_happened_meanwhile_is_known(data_center: DataCenter, guest: Guest, since: datetime) -> None:
    until(lambda: data_center.instance(guest.id)["state"] == "halted", "the end of the sleeper to be known")
    row = data_center.instance(guest.id)
    assert (row["wanted"], row["observed"]["state"]) == ("halted", "halted")
    (event,) = [one for one in data_center.events(guest.id, "instance.observed") if one["created_at"] > since]
    assert event["message"].startswith(f"{guest.id} was seen halted on "), event["message"]
    assert "no reason is known" not in event["message"]


def _after(story: dict[str, Any], since: datetime) -> float:
    return (datetime.fromisoformat(story["ended_at"]) - since).total_seconds()


# --- Redis forgets everything -----------------------------------------------------------------------------------------


def test_launches_whose_bells_are_lost_all_end_and_none_is_done_twice(data_center: DataCenter):
    world = FakeWorld(data_center.node_dir / "fake")
    world.set_faults(FakeFaults(start_delay_s=1))  # so that bells pile up, however fast they are asked for
    body = {"image": _fake_image(data_center), "memory_mib": 32}
    asked = [data_center.api.post("instances", body) for _ in range(LAUNCHES)]
    with redis.Redis(unix_socket_path=data_center.content["redis_url"].partition("://")[2]) as bells:
        until(lambda: _waiting_bells(bells) >= BELLS, f"{BELLS} bells to lie in Redis")
        bells.flushall()
    ids = {one["id"] for one in asked}
    try:
        for one in asked:
            data_center.done(one["operation"]["id"])
        started = Counter(json.loads(line)["uid"] for line in (data_center.node_dir / "fake" / "journal").open())
        assert started == dict.fromkeys(ids, 1), "each guest was started once"
        addresses = [data_center.instance(uid)["addresses"][0] for uid in ids]
        assert len(set(addresses)) == LAUNCHES
    finally:
        for operation in [data_center.api.verb(uid, "terminate") for uid in ids]:
            data_center.done(operation)


def _fake_image(data_center: DataCenter) -> str:
    stored = data_center.api.post("backup-objects", {"format": "gz"})["id"]
    answer = data_center.api.ask("PUT", f"backup-objects/{stored}/content", content=gzip.compress(bytes(1 << 20)))
    assert answer.status_code == 200, answer.text
    return data_center.api.post("images", {"name": "fake", "backup_object": stored, "hypervisor": "fake"})["id"]


def _waiting_bells(bells: redis.Redis) -> int:
    return sum(bells.llen(queue) for queue in bells.scan_iter("node.*", count=1000))
