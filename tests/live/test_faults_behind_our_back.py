"""What happens inside guests and behind our back shows on the row, with an event; our own restarts change nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from datetime import UTC, datetime

import httpx
import pytest

from tests.live.data_center import DataCenter, Guest, until

pytestmark = pytest.mark.live

SHOWN_WITHIN_S = 5  # two are promised
KINDS = ["kvm", "lxc"]


def shows(data_center: DataCenter, guest: Guest, state: str, observed: str, since: datetime) -> None:
    """Wait until the row says so, and see by its event how long after `since` it was written."""

    def shown() -> bool:
        row = data_center.instance(guest.id)
        return (row["state"], row["observed"]["state"]) == (state, observed)

    until(shown, f"{guest.hostname} to be {state} and observed {observed}")
    (event,) = [row for row in data_center.events(guest.id, "instance.observed") if row["created_at"] >= since]
    late_s = (event["created_at"] - since).total_seconds()
    print(f"{guest.hypervisor}: on the row after {late_s:.2f} s: {event['message']}")
    assert late_s < SHOWN_WITHIN_S


def poweron(data_center: DataCenter, guest: Guest) -> None:
    data_center.done(data_center.api.verb(guest.id, "poweron"))
    until(guest.answers, f"{guest.hostname} to answer")


def moment_of_end(pid: int) -> datetime:
    """When the process is gone."""
    until(lambda: not os.path.exists(f"/proc/{pid}/exe"), "the guest to end")  # noqa: PTH110
    return datetime.now(UTC)


def test_a_guest_that_powers_itself_off_is_halted_and_wanted_halted(data_center: DataCenter, guest: Guest):
    pid = data_center.guest_pid(guest)
    begun = datetime.now(UTC)
    guest.ssh_and_leave("poweroff")
    ended = moment_of_end(pid)
    until(lambda: data_center.instance(guest.id)["state"] == "halted", f"{guest.hostname} to be halted")
    row = data_center.instance(guest.id)
    assert (row["wanted"], row["observed"]["state"], row["operation"]) == ("halted", "halted", None)
    (event,) = [event for event in data_center.events(guest.id, "instance.observed") if event["created_at"] > begun]
    late_s = (event["created_at"] - ended).total_seconds()
    print(f"{guest.hypervisor}: on the row {late_s:.2f} s after the end: {event['message']}")
    assert late_s < SHOWN_WITHIN_S
    poweron(data_center, guest)


def test_a_guest_whose_process_is_killed_has_crashed_and_stays_wanted(data_center: DataCenter, guest: Guest):
    pid = data_center.guest_pid(guest)
    since = datetime.now(UTC)
    os.kill(pid, signal.SIGKILL)
    shows(data_center, guest, "halted", "crashed", since)
    assert data_center.instance(guest.id)["wanted"] == "running"
    poweron(data_center, guest)


def test_a_guest_that_virsh_destroys_is_halted_and_stays_wanted(data_center: DataCenter, guest: Guest):
    since = datetime.now(UTC)
    destroyed = data_center.virsh(guest.hypervisor, "destroy", guest.id)
    assert destroyed.returncode == 0, destroyed.stderr
    until(lambda: data_center.instance(guest.id)["state"] == "halted", f"{guest.hostname} to be halted")
    assert data_center.instance(guest.id)["wanted"] == "running"
    (event,) = [row for row in data_center.events(guest.id, "instance.observed") if row["created_at"] >= since]
    late_s = (event["created_at"] - since).total_seconds()
    print(f"{guest.hypervisor}: on the row after {late_s:.2f} s: {event['message']}")
    assert late_s < SHOWN_WITHIN_S
    poweron(data_center, guest)


def test_restarts_of_libvirtd_change_nothing_for_running_guests(data_center: DataCenter, guests: dict[str, Guest]):
    before = {guest.id: data_center.guest_pid(guest) for guest in guests.values()}
    for number in (signal.SIGTERM, signal.SIGKILL):
        since = datetime.now(UTC)
        data_center.kill("libvirtd", number)
        until(lambda: _libvirt_answers(data_center), "libvirtd to answer again")
        _nothing_changed(data_center, guests, before, since)
    # The lines to libvirt are made anew: its news are heard again, and the verbs work.
    for guest in guests.values():
        data_center.done(data_center.api.verb(guest.id, "poweroff", timeout_s=30))
    for guest in guests.values():
        poweron(data_center, guest)
    since = datetime.now(UTC)
    os.kill(data_center.guest_pid(guests["lxc"]), signal.SIGKILL)
    shows(data_center, guests["lxc"], "halted", "crashed", since)
    poweron(data_center, guests["lxc"])


def _libvirt_answers(data_center: DataCenter) -> bool:
    return all(data_center.virsh(kind, "list").returncode == 0 for kind in KINDS)


def test_a_container_that_ended_while_libvirtd_was_away_is_no_obstacle(
    data_center: DataCenter, guests: dict[str, Guest]
):
    """libvirtd keeps a shadow of it, which answers no question and stands in the way of the next start."""
    guest = guests["lxc"]
    init = data_center.guest_pid(guest)
    controller = int((data_center.stack.run_dir / "libvirt" / "lxc" / f"{guest.id}.pid").read_text())
    daemon = int((data_center.stack.run_dir / "libvirtd.pid").read_text())
    os.kill(daemon, signal.SIGSTOP)
    os.kill(init, signal.SIGKILL)
    moment_of_end(controller)
    os.kill(daemon, signal.SIGKILL)
    until(lambda: _libvirt_answers(data_center), "libvirtd to answer again")
    until(lambda: data_center.instance(guest.id)["state"] == "halted", "the end of the guest to be found")
    poweron(data_center, guest)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_restarts_of_our_own_processes_change_nothing_for_running_guests(
    data_center: DataCenter, guests: dict[str, Guest], short_lived: list[str], number: signal.Signals
):
    before = {guest.id: data_center.guest_pid(guest) for guest in guests.values()}
    since = datetime.now(UTC)
    for program in ("virtlogd", "redis", "control", "sweep", "files", "web", "node-ops", "node-bulk", "node-observer"):
        data_center.kill(program, number)
    until(lambda: _is_back(data_center), "the API to answer and the node to be online")
    _nothing_changed(data_center, guests, before, since)
    # A launch goes through all of them.
    launched = data_center.launch("lxc", f"after-{number.name.lower()}")
    short_lived.append(launched.id)
    killed = datetime.now(UTC)
    os.kill(data_center.guest_pid(launched), signal.SIGKILL)
    shows(data_center, launched, "halted", "crashed", killed)


def _is_back(data_center: DataCenter) -> bool:
    try:
        return data_center.node()["status"] == "online"
    except (httpx.HTTPError, AssertionError):
        return False


def _nothing_changed(
    data_center: DataCenter, guests: dict[str, Guest], before: dict[str, int], since: datetime
) -> None:
    for guest in guests.values():
        assert guest.answers()
        assert data_center.guest_pid(guest) == before[guest.id]
        row = data_center.instance(guest.id)
        assert (row["state"], row["wanted"], row["observed"]["state"]) == ("running", "running", "running")
        assert [event for event in data_center.events(guest.id) if event["created_at"] > since] == []


def test_what_happens_while_nobody_observes_is_found_when_the_observer_is_back(
    data_center: DataCenter, short_lived: list[str]
):
    guest = data_center.launch("lxc", "unwatched")
    short_lived.append(guest.id)
    pid = data_center.guest_pid(guest)
    with data_center.frozen("node-observer"):
        subprocess.run(["kill", "-KILL", str(pid)], check=True)
        moment_of_end(pid)
        data_center.kill_frozen("node-observer")
    until(lambda: data_center.instance(guest.id)["state"] == "halted", "the end of the guest to be found")
    row = data_center.instance(guest.id)
    assert (row["observed"]["state"], row["wanted"]) == ("crashed", "running")


def test_a_guest_that_virsh_starts_again_is_seen_running(data_center: DataCenter, guests: dict[str, Guest]):
    """A reset by hand, as an operator may do it, is no crash."""
    guest = guests["kvm"]
    guest.ssh("touch /run/before")
    since = datetime.now(UTC)
    assert data_center.virsh("kvm", "reset", guest.id).returncode == 0
    until(lambda: guest.answers() and guest.ssh("ls /run/before 2>/dev/null || echo gone") == "gone", "a new start")
    row = data_center.instance(guest.id)
    assert (row["state"], row["wanted"], row["observed"]["state"]) == ("running", "running", "running")
    assert [event for event in data_center.events(guest.id) if event["created_at"] > since] == []
