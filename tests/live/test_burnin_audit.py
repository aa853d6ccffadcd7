"""The audit of a campaign finds what has no owner: an empty answer is worth something only if it can be another."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from deploy.burnin.campaign import audit
from tests.live.data_center import DataCenter, Guest, until

pytestmark = pytest.mark.live


@pytest.fixture
def planted(data_center: DataCenter, guests: dict[str, Guest]) -> Iterator[set[tuple[str, str]]]:
    """One artefact of each kind that nobody owns, as (what, a part of its name); gone after the test."""
    until(lambda: audit(data_center.stack) == [], "a data center in which everything has an owner")
    node, number = data_center.node_dir, data_center.content["number"]
    file, link = node / "volumes" / "vol-planted.raw", f"v{number}s511n0"
    part, notes = node / "images" / "0.raw.op-planted.1.1.part", node / "guests" / "i-planted"
    with ExitStack() as undo:
        for path in (file, part):
            path.write_bytes(bytes(1 << 20))
            undo.callback(path.unlink)
        notes.mkdir()
        undo.callback(notes.rmdir)
        subprocess.run(["ip", "link", "add", link, "type", "bridge"], check=True)
        undo.callback(subprocess.run, ["ip", "link", "delete", link], check=True)
        attach = ["losetup", "--find", "--show", str(file)]
        loop = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
        undo.callback(subprocess.run, ["losetup", "--detach", loop], check=True)
        data_center.sql("UPDATE hypervisor_noderoom SET vcpus_used = vcpus_used + 1")
        undo.callback(data_center.sql, "UPDATE hypervisor_noderoom SET vcpus_used = vcpus_used - 1")
        data_center.sql(
            "INSERT INTO networks_lease (network_id, ipv4, mac, hostname, holder)"
            " SELECT id, host(broadcast(ipv4_network::inet) - 1)::inet, '52:54:00:00:00:01', 'x', 'vif-planted'"
            " FROM networks_network"
        )
        undo.callback(data_center.sql, "DELETE FROM networks_lease WHERE holder = 'vif-planted'")
        yield {
            ("volume file", file.name),
            ("file", part.name),
            ("guest file", notes.name),
            ("link", link),
            ("loop", loop),
            ("room", "vcpus"),
            ("address", ""),
        }


def test_what_nobody_owns_is_found(data_center: DataCenter, planted: set[tuple[str, str]]):
    findings = audit(data_center.stack)
    missed = {
        (what, name)
        for what, name in planted
        if not any(found["what"] == what and name in found["name"] for found in findings)
    }
    assert missed == set(), findings
