"""A silent node goes offline once, comes back by its own heartbeat, and an outage of ours is not its silence."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from hypervisor import listeners, liveness
from hypervisor.models import NodePulse
from operations.models import Event
from tests import datacenter

pytestmark = pytest.mark.django_db

LONG_S = 10 * liveness.SILENT_AFTER_S


@pytest.fixture
def heard(monkeypatch):
    heard = []
    monkeypatch.setattr(listeners, "on_silent", [heard.append])
    return heard


@pytest.fixture
def silent_node():
    node = datacenter.node()
    NodePulse.objects.filter(node=node).update(heartbeat_at=Now() - timedelta(seconds=liveness.SILENT_AFTER_S + 1))
    return node


def status(node):
    return NodePulse.objects.get(node=node).status


def test_a_silent_node_goes_offline_once_with_an_event(silent_node, heard):
    liveness.mark_silent(LONG_S)
    liveness.mark_silent(LONG_S)
    assert (status(silent_node), heard) == ("offline", [silent_node])
    assert Event.objects.filter(name="node.offline", subject_uid=silent_node.uid).count() == 1
    assert silent_node.uid in liveness.troubles({silent_node.uid})[silent_node.uid]


def test_while_the_database_was_away_silence_means_nothing(silent_node, heard):
    liveness.mark_silent(liveness.SILENT_AFTER_S / 2)
    assert (status(silent_node), heard) == ("online", [])


def test_a_node_that_beats_stays_online(heard):
    node = datacenter.node()
    liveness.mark_silent(LONG_S)
    assert (status(node), heard, liveness.troubles({node.uid})) == ("online", [], {})


def test_a_heartbeat_brings_a_node_back_with_one_event(silent_node, heard):
    liveness.mark_silent(LONG_S)
    liveness.beat(silent_node)
    liveness.beat(silent_node)
    assert status(silent_node) == "online"
    assert Event.objects.filter(name="node.online").count() == 1


def test_what_follows_from_silence_is_not_forgotten_when_it_fails(silent_node, monkeypatch):
    monkeypatch.setattr(listeners, "on_silent", [lambda node: 1 / 0])
    with pytest.raises(ZeroDivisionError):
        liveness.mark_silent(LONG_S)
    assert status(silent_node) == "online", "the next round tries again"


def test_a_node_that_nobody_knows_is_trouble():
    assert "not known any more" in liveness.troubles({"hn-gone0000"})["hn-gone0000"]
