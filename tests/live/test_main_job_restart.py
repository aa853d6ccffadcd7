"""`make down`, then `make up`: the same instances run, with their data, and what was halted stays halted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from deploy.laptop import cgroups, machine
from tests.live.data_center import DataCenter, Guest, until

pytestmark = pytest.mark.live


def test_down_and_up_bring_the_same_instances_with_their_data(
    data_center: DataCenter, guests: dict[str, Guest], short_lived: list[str]
):
    halted, switched_off = (data_center.launch("lxc", hostname) for hostname in ("halted", "switched-off"))
    short_lived += [halted.id, switched_off.id]
    data_center.done(data_center.api.verb(halted.id, "poweroff"))
    switched_off.ssh_and_leave("poweroff")
    until(lambda: data_center.instance(switched_off.id)["state"] == "halted", "the guest to switch itself off")
    for guest in guests.values():
        guest.ssh(f"echo {guest.id} >/root/before-down && sync")
    start_id = data_center.content["start_id"]

    data_center.down()
    _assert_nothing_is_left(data_center)
    data_center.up()

    assert data_center.content["start_id"] != start_id
    for guest in guests.values():
        until(lambda guest=guest: data_center.instance(guest.id)["state"] == "running", f"{guest.hostname} to run")
        row = data_center.instance(guest.id)
        assert (row["wanted"], row["addresses"]) == ("running", [guest.address])
        until(guest.answers, f"{guest.hostname} to answer")
        assert guest.ssh("cat /root/before-down") == guest.id
        down, up = data_center.api.items("operations", subject=guest.id)[1::-1]
        assert (down["verb"], down["state"]) == ("instance.poweroff", "done")
        assert (up["verb"], up["state"]) == ("instance.poweron", "done")
        reason = data_center.operation(down["id"])["steps"][0]["result"]["reason"]
        assert reason == "powered off when asked"
    for guest in (halted, switched_off):
        row = data_center.instance(guest.id)
        assert (row["state"], row["wanted"], row["operation"]) == ("halted", "halted", None)


def _assert_nothing_is_left(data_center: DataCenter) -> None:
    stack, number = data_center.stack, data_center.content["number"]
    assert not stack.run_dir.exists()
    assert cgroups.processes(stack) == set()
    assert [top for top in cgroups.tops(stack) if top.exists()] == []
    assert [link for link in machine.host_links() if link.startswith((f"v{number}s", f"v{number}br"))] == []
    loops = subprocess.run(["losetup", "--list", "--noheadings"], check=True, capture_output=True, text=True).stdout
    assert f"{stack.state_dir}/" not in loops
    tables = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
    assert data_center.content["nft_table"] not in tables.split()
    assert f"{stack.state_dir}/" not in Path("/proc/mounts").read_text()
    record = json.loads((machine.SHARED_DIR / "ip_forward.json").read_text())
    assert stack.name not in record["stacks"]
    assert machine.IP_FORWARD.read_text().strip() == ("1" if record["stacks"] else record["original"])
