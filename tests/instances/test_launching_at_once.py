"""Sixteen launches at the same moment never share a slot or an address, and never overfill a node."""

from __future__ import annotations

import threading

from core.errors import Conflict
from hypervisor.models import Node, NodeRoom
from instances.models import Instance, Vif
from networks.models import Lease
from tests import datacenter

GIB = 2**30


def launch_at_once(world, in_threads, count, **asked):
    start = threading.Barrier(count)

    def launch():
        start.wait(20)
        try:
            return world.launch(**asked)[0]
        except Conflict as refused:
            return refused.code

    return [future.result(60) for future in in_threads(*[launch] * count)]


def test_sixteen_launches_on_two_nodes_take_exactly_the_room_there_is(world, bells, in_threads):
    Node.objects.filter(pk=world.node.pk).update(memory_mib=5 * 256)
    second = datacenter.node("n2", memory_mib=6 * 256)
    outcomes = launch_at_once(world, in_threads, 16)
    assert sorted(one for one in outcomes if isinstance(one, str)) == ["no_room"] * 5
    assert NodeRoom.objects.get(node=world.node).memory_mib_used == 5 * 256
    assert NodeRoom.objects.get(node=second).memory_mib_used == 6 * 256
    for node, fits in ((world.node, 5), (second, 6)):
        slots = sorted(Instance.objects.filter(node=node).values_list("slot", flat=True))
        assert slots == list(range(fits))
        assert NodeRoom.objects.get(node=node).disk_bytes_used == fits * GIB
    assert Lease.objects.count() == Vif.objects.exclude(lease=None).count() == 11
    assert len(set(Lease.objects.values_list("ipv4", flat=True))) == 11
    bells.answer()
    assert not Instance.objects.exclude(state="running").exists()


def test_sixteen_launches_in_a_network_of_five_addresses(world, bells, in_threads):
    world.node  # noqa: B018 - the fixture made the big network; the small one replaces it
    Lease.objects.all().delete()
    datacenter.Network.objects.all().delete()
    datacenter.network("10.98.0.0/29", "10.98.0.1")
    outcomes = launch_at_once(world, in_threads, 16)
    assert sorted(one for one in outcomes if isinstance(one, str)) == ["no_address"] * 11
    assert sorted(Lease.objects.values_list("ipv4", flat=True)) == [f"10.98.0.{host}" for host in range(2, 7)]
    assert NodeRoom.objects.get(node=world.node).vcpus_used == 5, "who got no address took no room"


def test_one_of_many_gets_the_host_name(world, bells, in_threads):
    outcomes = launch_at_once(world, in_threads, 8, hostname="web")
    assert sorted(one for one in outcomes if isinstance(one, str)) == ["hostname_taken"] * 7
    assert NodeRoom.objects.get(node=world.node).vcpus_used == 1
