"""Room is taken and given back by claims, also by many at once on one node."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from hypervisor import rooms
from hypervisor.models import NodePulse, NodeRoom
from hypervisor.placement import Need, NoRoom
from tests import datacenter
from tests.committed import _only_rows, committed_db  # noqa: F401 - fixtures

pytestmark = pytest.mark.usefixtures("committed_db")

NEED = Need(hypervisor="fake", arch="x86_64", vcpus=1, memory_mib=100, disk_bytes=1000)


def place(need, **rest):
    with transaction.atomic():
        return rooms.place(need, **rest)


def room_of(node):
    room = NodeRoom.objects.get(node=node)
    return room.vcpus_used, room.memory_mib_used, room.disk_bytes_used


def at_once(count, work):
    """Call `work(number)` in that many threads at the same moment; what each returned."""
    start = threading.Barrier(count)

    def in_thread(number):
        try:
            start.wait(20)
            return work(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(in_thread, range(count)))


def test_placing_takes_room_and_giving_back_returns_it():
    node = datacenter.node()
    assert place(NEED) == node
    assert room_of(node) == (1, 100, 1000)
    rooms.give_back(node, vcpus=1, memory_mib=100, disk_bytes=1000)
    assert room_of(node) == (0, 0, 0)


def test_room_goes_with_the_transaction_that_took_it():
    node = datacenter.node()
    with pytest.raises(RuntimeError), transaction.atomic():
        place(NEED)
        raise RuntimeError
    assert room_of(node) == (0, 0, 0)


def test_only_the_named_node_is_asked_when_one_is_named():
    datacenter.node("big")
    small = datacenter.node("small", memory_mib=50)
    with pytest.raises(NoRoom, match="'memory' refused the only node"):
        place(NEED, only=small.uid)


def test_an_offline_node_takes_nothing():
    node = datacenter.node()
    NodePulse.objects.filter(node=node).update(status="offline")
    with pytest.raises(NoRoom, match="'online'"):
        place(NEED)


def test_sixteen_at_once_never_take_more_than_there_is():
    node = datacenter.node(memory_mib=500)

    def try_to_place(number):
        try:
            return place(NEED)
        except NoRoom:
            return None

    placed = at_once(16, try_to_place)
    assert len([one for one in placed if one]) == 5
    assert room_of(node) == (5, 500, 5000)


def test_a_candidate_lost_to_someone_faster_means_the_next_one():
    """Two nodes, each filled by transactions that stay open for a while: nobody deadlocks, nobody is refused early."""
    nodes = [datacenter.node(name, memory_mib=400) for name in ("one", "two")]

    def try_to_place(number):
        try:
            with transaction.atomic():
                return place(NEED).name
        except NoRoom:
            return None

    placed = at_once(16, try_to_place)
    assert sorted(name for name in placed if name) == ["one"] * 4 + ["two"] * 4
    assert [room_of(node) for node in nodes] == [(4, 400, 4000)] * 2


def test_a_node_that_somebody_places_on_is_passed_over_while_another_one_fits():
    busy, free = datacenter.node("busy", memory_mib=2000), datacenter.node("free", memory_mib=1000)
    with transaction.atomic():
        assert rooms.place(NEED) == busy, "it has the most room"
        [other] = at_once(1, lambda number: place(NEED))
        assert other == free, "and nobody waited for the one that is being placed on"
