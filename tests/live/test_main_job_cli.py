"""The `vdc` command against a living data center: what people type, what they read, and the exit codes."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest

from tests.hypervisor.object_server import ObjectServer
from tests.live.data_center import GUEST_IMAGES, DataCenter, Guest, until

pytestmark = pytest.mark.live


def test_instances_are_listed_and_shown(data_center: DataCenter, guests: dict[str, Guest]):
    listed = data_center.vdc("instance", "list")
    assert (listed.returncode, listed.stderr) == (0, "")
    for guest in guests.values():
        (line,) = [line for line in listed.stdout.splitlines() if guest.id in line]
        assert "running" in line
        assert guest.address in line
        shown = data_center.vdc("instance", "show", guest.id, "-o", "json")
        assert json.loads(shown.stdout)["addresses"] == [guest.address]
    assert data_center.node()["id"] in data_center.vdc("node", "list").stdout
    assert data_center.images["kvm"] in data_center.vdc("image", "list").stdout


def test_an_instance_is_created_followed_and_ended_by_commands(data_center: DataCenter, short_lived: list[str]):
    words = ["--image", data_center.images["lxc"], "--hostname", "typed", "--memory-mib", "64"]
    created = data_center.vdc("instance", "create", *words, "--ssh-key", data_center.key, "--wait", "-o", "json")
    assert created.returncode == 0, created.stderr
    row = json.loads(created.stdout)
    short_lived.append(row["id"])
    assert row["state"] == "running"
    until(data_center.guest(row["id"]).answers, "the guest to answer")
    console = data_center.vdc("instance", "console-log", row["id"])
    assert console.stdout.startswith("vdc-guest: init started")

    (launch,) = data_center.api.items("operations", subject=row["id"])
    story = data_center.vdc("operation", "show", launch["id"])
    assert story.returncode == 0
    for word in ("volumes.fetch_image", "volumes.build_volume", "networks.plug", "instances.start_guest", "done"):
        assert word in story.stdout
    assert data_center.vdc("operation", "watch", launch["id"]).returncode == 0

    for verb, state in (("poweroff", "halted"), ("poweron", "running"), ("terminate", "terminated")):
        done = data_center.vdc("instance", verb, row["id"], "--wait", "-o", "json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["state"] == state


def test_an_image_is_imported_from_a_file(data_center: DataCenter, tmp_path: Path):
    facts = data_center.manifest["lxc"]
    file = tmp_path / "own.raw.gz"
    file.write_bytes(data_center.other_guest_image("lxc", 7))
    options = ["--name", "own", "--hypervisor", "lxc", "--init", facts["init"], "--root-device", facts["root_device"]]
    imported = data_center.vdc("image", "import", str(file), *options, "-o", "json")
    assert imported.returncode == 0, imported.stderr
    image = json.loads(imported.stdout)
    assert (image["state"], image["size_bytes"]) == ("available", facts["raw_size_bytes"])
    assert image["stored_size_bytes"] == file.stat().st_size


def test_an_image_is_imported_from_a_url(data_center: DataCenter):
    facts = data_center.manifest["lxc"]
    options = ["--name", "fetched", "--hypervisor", "lxc", "--init", facts["init"], "--format", "gz"]
    options += ["--root-device", facts["root_device"], "--sha256", facts["sha256"]]
    with ObjectServer() as server:
        url = server.serve("/guest.raw.gz", (GUEST_IMAGES / facts["file"]).read_bytes())
        imported = data_center.vdc("image", "import", url, *options, "--wait", "-o", "json")
    assert imported.returncode == 0, imported.stderr
    image = json.loads(imported.stdout)
    assert (image["state"], image["sha256"]) == ("available", facts["sha256"])


def test_what_fails_or_is_refused_ends_with_1_and_a_sentence(data_center: DataCenter, tmp_path: Path):
    unknown = data_center.vdc("instance", "create", "--image", "wmi-00000000")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "wmi-00000000" in unknown.stderr
    assert data_center.vdc("instance", "poweroff", "i-00000000").returncode == 1
    assert data_center.vdc("operation", "show", "op-00000000").returncode == 1

    broken = tmp_path / "broken.raw.gz"
    broken.write_bytes(gzip.compress(b"x" * 100_000)[:-10])
    imported = data_center.vdc("image", "import", str(broken), "--name", "broken", "--hypervisor", "kvm")
    assert imported.returncode == 1
    assert "Traceback" not in imported.stderr

    url = f"http://127.0.0.1:{data_center.content['port']}/nothing-here.gz"
    failed = data_center.vdc(
        "image", "import", url, "--name", "gone", "--hypervisor", "kvm", "--format", "gz", "--wait"
    )
    assert failed.returncode == 1
    assert "404" in failed.stderr + failed.stdout


def test_wrong_use_ends_with_2(data_center: DataCenter):
    assert data_center.vdc("instance", "create").returncode == 2
    assert data_center.vdc("instance", "show", "no/id").returncode == 2
    assert data_center.vdc("instance", "dance", "i-00000000").returncode == 2


def test_a_key_made_by_command_opens_a_guest(data_center: DataCenter, short_lived: list[str], tmp_path: Path):
    private_key = tmp_path / "made"
    made = data_center.vdc("key", "create", "--name", "made", "--save", str(private_key))
    assert made.returncode == 0, made.stderr
    assert private_key.stat().st_mode & 0o077 == 0
    (key,) = [key for key in data_center.api.items("ssh-key-pairs") if key["name"] == "made"]
    guest = data_center.launch("lxc", "made-key", ssh_keys=[key["id"]])
    short_lived.append(guest.id)
    options = ["-oBatchMode=yes", "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null"]
    words = ["ssh", "-q", "-i", str(private_key), *options, f"root@{guest.address}", "hostname"]

    def came_through() -> str:
        return subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False).stdout

    assert until(came_through, "ssh to answer").strip() == "made-key"
