"""A fleet: many fake nodes that one machine serves."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from core.errors import Transient
from hypervisor import fleet, listeners, liveness, local
from hypervisor.contract import Observation, Observed
from hypervisor.drivers.fake import FakeDriver
from hypervisor.drivers.fake_world import FakeFaults
from hypervisor.drivers.settings import DriverSettings
from hypervisor.insisting import insist
from hypervisor.models import NodePulse, NodeStatus
from hypervisor.opening import this_start
from tests import datacenter

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def driver(tmp_path, monkeypatch):
    driver = FakeDriver(DriverSettings(stack="test", node_dir=tmp_path))
    monkeypatch.setattr(local, "driver", lambda hypervisor: driver)
    return driver


def test_joining_again_makes_only_the_nodes_that_are_missing():
    first = fleet.join(2)
    assert [node.hypervisors for node in first] == [["fake"], ["fake"]]
    assert [node.pk for node in fleet.join(3)][:2] == [node.pk for node in first]
    assert len(fleet.join(1)) == 3


def test_a_node_of_its_own_is_not_of_the_fleet():
    datacenter.node()
    assert fleet.join(1) == list(fleet.nodes())
    assert fleet.nodes().count() == 1


def test_one_observer_opens_all_lanes_beats_for_all_and_tells_each_node_of_its_guests(driver, monkeypatch):
    first, second = fleet.join(2)
    told = []
    stop = threading.Event()

    def hear(node, look):
        told.append((node.pk, look.uid, look.state))
        stop.set()

    monkeypatch.setattr(listeners, "on_seen", [hear])
    monkeypatch.setattr(listeners, "guests_of", [lambda uids: {"i-second": second.pk}])
    monkeypatch.setattr(listeners, "on_start", [lambda node: driver.world.happen("i-second", Observed.CRASHED, "here")])

    def watch():
        fleet.FleetObserver(stop).run()
        connection.close()

    observer = threading.Thread(target=watch)
    observer.start()
    assert stop.wait(60), "nobody told of the guest"
    observer.join()
    assert told[0] == (second.pk, "i-second", Observed.CRASHED)
    assert fleet.nodes().filter(**this_start()).count() == 2
    assert NodePulse.objects.filter(node__in=[first, second], status=NodeStatus.ONLINE).count() == 2


def test_the_lanes_of_a_fleet_stay_closed_until_its_hypervisor_answers(driver, monkeypatch):
    fleet.join(1)
    monkeypatch.setattr(liveness, "HEARTBEAT_S", 0)
    driver.world.set_faults(FakeFaults(unreachable=True))
    observer = fleet.FleetObserver(threading.Event())
    insist(observer._start, observer._stop)
    assert not fleet.nodes().filter(**this_start()).exists()
    driver.world.set_faults(FakeFaults())
    observer._turn()
    assert fleet.nodes().filter(**this_start()).count() == 1


def test_a_guest_that_cannot_be_asked_about_hides_no_other_that_changed_with_it(driver, monkeypatch):
    [node] = fleet.join(1)
    told = []

    def hear(node, look):
        if look.uid == "i-mute":
            raise Transient("it cannot be asked")
        told.append(look.uid)

    monkeypatch.setattr(listeners, "on_seen", [hear])
    monkeypatch.setattr(listeners, "guests_of", [lambda uids: dict.fromkeys(uids, node.pk)])
    observer = fleet.FleetObserver(threading.Event())
    for uid in ("i-mute", "i-other"):
        observer._heard.put(Observation(uid, Observed.CRASHED))
    observer._turn()
    assert told == ["i-other"]
