"""A node that falls silent takes no new instance, keeps its guests, and comes back by its own sign of life."""

from __future__ import annotations

import pytest

from tests.live.data_center import DataCenter, Guest, until

pytestmark = pytest.mark.live


def test_a_silent_node_goes_offline_and_comes_back(data_center: DataCenter, guests: dict[str, Guest]):
    node = data_center.node()["id"]
    with data_center.frozen("node-observer"):
        until(lambda: data_center.node()["status"] == "offline", "the silence to be noticed")
        assert data_center.events(node)[-1]["name"] == "node.offline"
        for guest in guests.values():
            row = data_center.instance(guest.id)
            assert (row["state"], row["wanted"], row["observed"]["state"]) == ("running", "running", "unknown")
            assert node in row["observed"]["reason"]
            assert guest.answers()
        before = len(data_center.api.items("instances"))
        body = {"image": data_center.images["lxc"], "memory_mib": 64}
        refused = data_center.api.ask("POST", "instances", json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "no_room")
        assert "'online'" in refused.json()["detail"]
        assert len(data_center.api.items("instances")) == before
    until(lambda: data_center.node()["status"] == "online", "the node to come back")
    assert data_center.events(node)[-1]["name"] == "node.online"
    for guest in guests.values():
        until(
            lambda guest=guest: data_center.instance(guest.id)["observed"]["state"] == "running",
            f"{guest.hostname} to be observed again",
        )
