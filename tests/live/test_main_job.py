"""The main job: one request, and a guest that answers."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.live.data_center import DataCenter, Guest, until

pytestmark = pytest.mark.live


def test_a_guest_answers_http_and_has_the_name_that_was_asked_for(guest: Guest):
    assert guest.http().splitlines() == [f"hello from {guest.hypervisor}-guest", f"instance-id: {guest.id}"]
    assert guest.ssh("hostname") == guest.hostname


def test_the_imported_key_opens_ssh_and_no_other_does(guest: Guest, tmp_path: Path):
    assert guest.ssh("id -u") == "0"
    kept = guest.ssh("cat /root/.ssh/authorized_keys").splitlines()
    assert kept == [guest.private_key.with_suffix(".pub").read_text().strip()]


def test_the_console_log_begins_with_the_first_line_that_init_printed(data_center: DataCenter, guest: Guest):
    log = data_center.api.ask("GET", f"instances/{guest.id}/console-log")
    assert log.status_code == 200
    assert log.text.lstrip("\x00").splitlines()[0].strip() == "vdc-guest: init started"


def test_a_container_is_root_only_inside(data_center: DataCenter, guests: dict[str, Guest]):
    """Its init runs in a range of user ids of its own, away from those of this machine."""
    init = data_center.guest_pid(guests["lxc"])
    (line,) = Path(f"/proc/{init}/uid_map").read_text().splitlines()
    inside, outside, count = map(int, line.split())
    assert (inside, count) == (0, 65_536)
    assert outside >= 524_288
    assert Path(f"/proc/{init}").stat().st_uid == outside


def test_user_data_ran_once_and_a_reboot_is_not_a_power_off(data_center: DataCenter, guests: dict[str, Guest]):
    for guest in guests.values():
        until(lambda guest=guest: guest.ssh("cat /root/user-data-ran || true"), "user-data to have run")
        guest.ssh("touch /run/before-the-reboot")
        guest.ssh_and_leave("reboot")
    for guest in guests.values():
        until(lambda guest=guest: _rebooted(guest), f"{guest.hostname} to be there again")
        assert guest.ssh("cat /root/user-data-ran") == "ran"
        row = data_center.instance(guest.id)
        assert (row["state"], row["wanted"], row["observed"]["state"]) == ("running", "running", "running")
        assert row["operation"] is None


def _rebooted(guest: Guest) -> bool:
    try:
        return guest.answers() and guest.ssh("test -e /run/before-the-reboot || echo gone") == "gone"
    except (httpx.HTTPError, AssertionError):
        return False


def test_a_launch_tells_its_story(data_center: DataCenter, guest: Guest):
    (launch,) = data_center.api.items("operations", subject=guest.id)[-1:]
    story = data_center.operation(launch["id"])
    assert story["verb"] == "instance.launch"
    tasks = [step["task"] for step in story["steps"]]
    assert tasks == ["volumes.fetch_image", "volumes.build_volume", "networks.plug", "instances.start_guest"]
    for step in story["steps"]:
        assert step["state"] == "done", step
        assert step["node"] == data_center.node()["id"]
        assert [attempt["outcome"] for attempt in step["attempts"]] == ["done"]
    size_bytes = data_center.manifest[guest.hypervisor]["stored_size_bytes"]
    assert story["steps"][0]["progress"] == {"done": size_bytes, "total": size_bytes, "unit": "bytes"}
    assert story["steps"][0]["result"]["sha256"] == data_center.manifest[guest.hypervisor]["sha256"]


def test_power_off_and_on_keep_the_disk_and_the_address(data_center: DataCenter, guests: dict[str, Guest]):
    for guest in guests.values():
        guest.ssh("echo kept >/root/kept && sync")
    for guest, operation in [(guest, data_center.api.verb(guest.id, "poweroff")) for guest in guests.values()]:
        data_center.done(operation)
        row = data_center.instance(guest.id)
        assert (row["state"], row["wanted"], row["observed"]["state"]) == ("halted", "halted", "halted")
        assert row["observed"]["reason"] == "powered off when asked"
        assert row["allowed_verbs"] == ["poweron", "terminate"]
    for guest, operation in [(guest, data_center.api.verb(guest.id, "poweron")) for guest in guests.values()]:
        data_center.done(operation)
        row = data_center.instance(guest.id)
        assert (row["state"], row["wanted"], row["addresses"]) == ("running", "running", [guest.address])
    for guest in guests.values():
        assert guest.ssh("cat /root/kept") == "kept"


def test_a_wrong_verb_is_refused_with_the_verbs_allowed_now(data_center: DataCenter, guest: Guest):
    refused = data_center.api.ask("POST", f"instances/{guest.id}/poweron", json={})
    assert refused.status_code == 409
    problem = refused.json()
    assert (problem["code"], problem["state"]) == ("wrong_state", "running")
    assert problem["allowed_verbs"] == ["poweroff", "terminate"]
