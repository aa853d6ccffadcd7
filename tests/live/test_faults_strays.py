"""Guests and disks that the record has lost are found on the node, and come back or go by an operator's word."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from tests.live.data_center import DataCenter, Guest, until

pytestmark = pytest.mark.live


def lose(data_center: DataCenter, uid: str) -> str:
    """The record forgets an instance with all its parts, as if it was restored from an older copy; its volume's id."""
    [row] = data_center.sql("SELECT * FROM instances_instance WHERE uid = %s", uid)
    [disk] = data_center.sql(
        "SELECT v.* FROM volumes_volume v JOIN instances_volumeattachment a ON a.volume_id = v.id"
        " WHERE a.instance_id = %s",
        row["id"],
    )
    leases = data_center.sql("DELETE FROM instances_vif WHERE instance_id = %s RETURNING lease_id", row["id"])
    for lease in leases:
        data_center.sql("DELETE FROM networks_lease WHERE id = %s", lease["lease_id"])
    data_center.sql("DELETE FROM instances_volumeattachment WHERE instance_id = %s", row["id"])
    data_center.sql("DELETE FROM instances_instance WHERE id = %s", row["id"])
    data_center.sql("DELETE FROM volumes_volume WHERE id = %s", disk["id"])
    data_center.sql(
        "UPDATE hypervisor_noderoom SET vcpus_used = vcpus_used - %s, memory_mib_used = memory_mib_used - %s,"
        " disk_bytes_used = disk_bytes_used - %s",
        row["vcpus"],
        row["memory_mib"],
        disk["size_bytes"],
    )
    return disk["uid"]


def said(data_center: DataCenter, *words: str) -> str:
    """What a command prints that must end well."""
    done = data_center.vdc(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stray(data_center: DataCenter, name: str) -> dict:
    """The stray of this name, as soon as it is seen."""
    node = data_center.node()["id"]

    def found() -> dict | None:
        items = json.loads(said(data_center, "node", "strays", node, "-o", "json"))
        return next((item for item in items if item["name"] == name), None)

    return until(found, f"{name} to be seen as a stray")


@pytest.mark.parametrize("kind", ["lxc", "kvm"])
def test_a_guest_that_the_record_has_lost_is_adopted_as_it_runs(
    data_center: DataCenter, short_lived: list[str], kind: str
):
    guest = data_center.launch(kind, f"lost-{kind}")
    node, account = data_center.node(), data_center.instance(guest.id)["account"]
    volume, pid = lose(data_center, guest.id), data_center.guest_pid(guest)
    found = stray(data_center, guest.id)
    assert (found["kind"], found["hypervisor"], found["observed"]) == ("guest", kind, "running")
    assert [disk["uid"] for disk in found["facts"]["disks"]] == [volume]
    print(said(data_center, "node", "strays"))
    told = said(data_center, "node", "adopt", node["id"], guest.id, "--account", account, "--wait")
    short_lived.append(guest.id)
    assert f"{guest.id} is running at {guest.address}" in told
    row = data_center.instance(guest.id)
    assert (row["image"], row["volumes"][0]["id"]) == (data_center.images[kind], volume)
    assert data_center.node()["vcpus_used"] == node["vcpus_used"]
    assert data_center.guest_pid(guest) == pid, "it was not touched"
    assert guest.answers()
    data_center.done(data_center.api.verb(guest.id, "poweroff", timeout_s=30))
    data_center.done(data_center.api.verb(guest.id, "poweron"))
    until(guest.answers, f"{guest.hostname} to answer after a power-off and on")
    refused = data_center.vdc("node", "adopt", node["id"], guest.id, "--account", account)
    assert refused.returncode == 1
    assert "no stray" in refused.stderr


def test_a_guest_put_into_quarantine_goes_and_its_disk_is_kept_restored_and_deleted(data_center: DataCenter):
    guest = data_center.launch("lxc", "unwanted")
    node = data_center.node()["id"]
    volume = lose(data_center, guest.id)
    stray(data_center, guest.id)
    said(data_center, "node", "quarantine", node, guest.id, "--wait")
    assert guest.id not in data_center.domains()
    print(said(data_center, "node", "trash", node))
    [entry] = [
        item for item in json.loads(said(data_center, "node", "trash", node, "-o", "json")) if item["volume"] == volume
    ]
    assert guest.id in entry["reason"]
    assert entry["discarded_at"] < entry["expires_at"]
    told = said(data_center, "node", "restore", node, entry["id"], "--wait")
    assert f"{volume} is available" in told
    assert data_center.api.get(f"volumes/{volume}")["size_bytes"] == entry["volume_size_bytes"]
    # Its row is lost again: now the disk alone is a stray, and it goes for good.
    data_center.sql("DELETE FROM volumes_volume WHERE uid = %s", volume)
    assert stray(data_center, volume)["kind"] == "volume"
    said(data_center, "node", "quarantine", node, volume, "--wait")
    [entry] = [item for item in data_center.api.get(f"nodes/{node}/trash")["items"] if item["volume"] == volume]
    assert "is deleted" in said(data_center, "node", "delete-trash", node, entry["id"])
    assert not list((data_center.node_dir / "trash").glob(f"{volume}*"))
    until(
        lambda: [event for event in data_center.events(node, "node.trash.emptied") if volume in event["message"]],
        "the node to tell of the deleted disk",
    )


def test_an_unknown_stray_and_an_unknown_entry_are_refused_by_name(data_center: DataCenter):
    node = data_center.node()["id"]
    unknown = data_center.vdc("node", "quarantine", node, "i-nobody00")
    assert unknown.returncode == 1
    assert f"No stray i-nobody00 is seen on {node}" in unknown.stderr
    assert "last look" in unknown.stderr
    unknown = data_center.vdc("node", "restore", node, "vol-nobody00.op-nobody00")
    assert f"The trash of {node}" in unknown.stderr


def test_the_trash_of_a_node_that_does_not_answer_is_a_503_that_says_so(data_center: DataCenter):
    node = data_center.node()["id"]
    with data_center.storage_behind("http://127.0.0.1:9"):
        answer = data_center.api.ask("GET", f"nodes/{node}/trash")
    assert (answer.status_code, answer.json()["code"]) == (503, "files_server")
    assert node in answer.json()["detail"]


def show_root(data_center: DataCenter, guest: Guest) -> None:
    """Show the root file system of a container that is off, as its driver would."""
    [row] = data_center.sql(
        "SELECT i.slot, n.number, v.uid FROM instances_instance i JOIN hypervisor_node n ON n.id = i.node_id"
        " JOIN instances_volumeattachment a ON a.instance_id = i.id JOIN volumes_volume v ON v.id = a.volume_id"
        " WHERE i.uid = %s",
        guest.id,
    )
    disk = data_center.node_dir / "volumes" / f"{row['uid']}.raw"
    base = 524_288 + (row["number"] * 512 + row["slot"]) * 65_536
    data_center.python_inside(
        "from pathlib import Path; from hypervisor.contract import DiskSpec; "
        "from hypervisor.drivers.libvirt import rootfs; "
        f"rootfs.ensure_shown(DiskSpec('', '{disk}', 'raw', 1), '{data_center.manifest['lxc']['root_device']}', "
        f"Path('{data_center.node_dir}/mounts/{guest.id}'), {base})"
    )


@pytest.mark.parametrize("kind", ["kvm", "lxc"])
def test_a_guest_that_is_started_behind_our_back_is_running_with_an_event(
    data_center: DataCenter, guests: dict[str, Guest], kind: str
):
    guest = guests[kind]
    definition = data_center.scratch / f"{guest.id}.xml"
    definition.write_text(data_center.virsh(kind, "dumpxml", "--inactive", guest.id).stdout)
    data_center.done(data_center.api.verb(guest.id, "poweroff", timeout_s=30))
    if kind == "lxc":
        show_root(data_center, guest)
    since = datetime.now(UTC)
    created = data_center.virsh(kind, "create", str(definition))
    assert created.returncode == 0, created.stderr
    until(lambda: data_center.instance(guest.id)["state"] == "running", f"{guest.hostname} to be seen running")
    events = [event for event in data_center.events(guest.id, "instance.observed") if event["created_at"] >= since]
    late_s = (events[0]["created_at"] - since).total_seconds()
    print(f"{kind}: on the row {late_s:.2f} s after virsh began to start it: {events[0]['message']}")
    assert "no operation had asked for it" in events[0]["message"]
    until(guest.answers, f"{guest.hostname} to answer")
    data_center.done(data_center.api.verb(guest.id, "poweroff", timeout_s=30))
    data_center.done(data_center.api.verb(guest.id, "poweron"))
