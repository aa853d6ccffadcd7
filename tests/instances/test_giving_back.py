"""What an instance takes (room, slot, address, host name, disk) is given back exactly once, however it ends."""

from __future__ import annotations

import pytest

from core.errors import Cancelled, Conflict, Permanent
from hypervisor.models import NodeRoom
from instances import services
from instances.models import Instance
from networks.models import Lease
from operations import engine, protocol, timing
from operations.models import Event, Operation, Step
from volumes import tasks as volumes
from volumes.models import Volume

GIB = 2**30


def room(node):
    room = NodeRoom.objects.get(node=node)
    return room.vcpus_used, room.memory_mib_used, room.disk_bytes_used


def terminate(instance):
    return services.terminate_instance(instance, requested_by="the tests")


def assert_gone(world, instance):
    instance.refresh_from_db()
    assert (instance.state, instance.slot, instance.room_held) == ("terminated", None, False)
    assert instance.terminated_at is not None
    assert room(world.node) == (0, 0, 0)
    assert not Lease.objects.exists()
    assert not Volume.objects.exclude(state="deleted").exists()
    assert not Volume.objects.filter(room_held=True).exists()
    assert instance.uid not in world.hypervisor.guests
    assert not Operation.objects.filter(ended_at=None).exists()


def test_launch_takes_each_thing_once_and_terminate_gives_all_back(world, running):
    instance = running(hostname="web", vcpus=2, memory_mib=512)
    assert room(world.node) == (2, 512, GIB)
    assert (instance.slot, Lease.objects.count()) == (0, 1)
    terminate(instance)
    assert room(world.node) == (2, 512, GIB), "nothing is given back before it is gone"


@pytest.mark.parametrize("steps_answered", range(5))
def test_terminate_at_every_moment_of_a_launch_leaves_nothing(world, bells, steps_answered, monkeypatch):
    """Before each step, and after the last."""
    instance, operation = world.launch(hostname="web")
    with monkeypatch.context() as one_step_at_a_time:
        one_step_at_a_time.setattr(protocol, "_goes_on_inline", lambda run, node, lane: False)
        for _ in range(steps_answered):
            protocol.run_step(*bells.pop(0))
    done = Step.objects.filter(operation=operation, state="done").count()
    assert done == steps_answered
    terminate(instance)
    bells.answer()
    assert_gone(world, instance)
    again, _ = world.launch(hostname="web")
    assert again.slot == 0, "the host name, the slot and the address are free again"


@pytest.mark.parametrize("word", ["ensure_running"])
def test_terminate_while_the_guest_starts_leaves_nothing(world, bells, quick, word):
    instance, operation = world.launch()

    def interrupted(watch):
        terminate(Instance.objects.get(pk=instance.pk))
        watch.pause(30)

    world.hypervisor.before[word] = interrupted
    bells.answer()
    assert_gone(world, instance)
    operation.refresh_from_db()
    assert (operation.state, operation.undone) == ("cancelled", [])


def test_a_launch_that_failed_keeps_what_it_holds_says_so_and_terminate_gives_it_back(world, bells):
    def refuse(watch):
        raise Permanent("the kernel is missing")

    world.hypervisor.before["ensure_running"] = refuse
    instance, operation = world.launch(vcpus=2, memory_mib=512)
    bells.answer()
    instance.refresh_from_db()
    operation.refresh_from_db()
    assert (instance.state, operation.state) == ("error", "failed")
    assert instance.error["message"] == "the kernel is missing"
    assert room(world.node) == (2, 512, GIB)
    assert Volume.objects.get().state == "attached", "the disk is whole, so it stays"
    assert operation.held == [
        f"{instance.uid} keeps its room on {world.node} and its addresses (10.99.0.2) until it is terminated"
    ]
    terminate(instance)
    bells.answer()
    assert_gone(world, instance)


@pytest.mark.parametrize("steps_answered", range(4))
def test_a_launch_that_is_cancelled_gives_all_back(world, bells, steps_answered, monkeypatch):
    instance, operation = world.launch()
    monkeypatch.setattr(protocol, "_goes_on_inline", lambda run, node, lane: False)
    for _ in range(steps_answered):
        protocol.run_step(*bells.pop(0))
    engine.cancel(operation, reason="somebody thought better of it")
    bells.answer()
    instance.refresh_from_db()
    assert (instance.state, instance.slot, instance.room_held) == ("terminated", None, False)
    assert room(world.node) == (0, 0, 0)
    assert not Lease.objects.exists()
    assert not Volume.objects.exclude(state="deleted").exists()
    assert world.hypervisor.guests.get(instance.uid) != "running"


def test_terminate_twice_gives_back_once(world, running, bells):
    other = running()
    instance = running()
    terminate(instance)
    with pytest.raises(Conflict) as refused:
        terminate(instance)
    assert refused.value.code == "busy", "a terminate is not begun anew by another"
    bells.answer()
    with pytest.raises(Conflict) as refused:
        terminate(instance)
    assert refused.value.code == "wrong_state"
    assert room(world.node) == (other.vcpus, other.memory_mib, GIB)


def test_a_terminate_that_failed_can_be_repeated(world, running, bells):
    def refuse(watch):
        raise Permanent("the guest clings to life")

    instance = running()
    world.hypervisor.before["ensure_absent"] = refuse
    terminate(instance)
    bells.answer()
    instance.refresh_from_db()
    assert (instance.state, instance.room_held) == ("error", True)
    world.hypervisor.before.clear()
    terminate(instance)
    bells.answer()
    assert_gone(world, instance)


def test_a_forced_power_off_never_stops_a_terminate(world, running, bells):
    instance = running()
    terminate(instance)
    protocol_bell = bells[0]
    with pytest.raises(Conflict) as refused:
        services.poweroff_instance(instance, requested_by="the tests", force=True)
    assert refused.value.code == "busy"
    assert bells == [protocol_bell]
    bells.answer()
    assert_gone(world, instance)


def test_a_forced_power_off_ends_a_graceful_one_that_hangs(world, running, bells, quick):
    instance = running()
    begun = []

    def hang(watch):
        if not begun:
            fresh = Instance.objects.get(pk=instance.pk)
            begun.append(services.poweroff_instance(fresh, requested_by="the tests", force=True))
            watch.pause(30)

    world.hypervisor.before["ensure_halted"] = hang
    graceful = services.poweroff_instance(instance, requested_by="the tests")
    bells.answer()
    instance.refresh_from_db()
    graceful.refresh_from_db()
    begun[0].refresh_from_db()
    assert (graceful.state, begun[0].state, instance.state) == ("cancelled", "done", "halted")
    assert room(world.node)[0] == 1, "a halted instance keeps its room"


@pytest.mark.parametrize("scale", [1, 0.1, 0.02])
def test_a_guest_gets_its_whole_time_in_a_data_center_that_hurries(world, running, monkeypatch, scale):
    monkeypatch.setattr(timing, "SCALE", scale)
    operation = services.poweroff_instance(running(), timeout_s=60, requested_by="the tests")
    [step] = Step.objects.filter(operation=operation)
    assert step.deadline_s * scale > 60


def test_terminate_during_a_graceful_power_off_that_hangs(world, running, bells, quick):
    instance = running()

    def hang(watch):
        terminate(Instance.objects.get(pk=instance.pk))
        watch.pause(30)

    world.hypervisor.before["ensure_halted"] = hang
    services.poweroff_instance(instance, requested_by="the tests")
    bells.answer()
    assert_gone(world, instance)


def test_an_attempt_that_was_cancelled_in_the_driver_tells_no_error(world, bells):
    instance, operation = world.launch()

    def cancelled(watch):
        engine.cancel(operation, reason="enough")
        raise Cancelled("enough")

    world.hypervisor.before["ensure_running"] = cancelled
    bells.answer()
    operation.refresh_from_db()
    instance.refresh_from_db()
    assert (operation.state, operation.error, instance.error) == ("cancelled", None, None)
    last = Event.objects.filter(operation_uid=operation.uid, name="instance.launch.cancelled")
    assert "enough" in last.get().message


def test_a_refused_launch_leaves_nothing(world):
    with pytest.raises(Conflict):
        world.launch(memory_mib=10**6)
    world.launch(hostname="web")
    before = room(world.node), Lease.objects.count(), Volume.objects.count(), Operation.objects.count()
    with pytest.raises(Conflict) as refused:
        world.launch(hostname="web")
    assert refused.value.code == "hostname_taken"
    assert (room(world.node), Lease.objects.count(), Volume.objects.count(), Operation.objects.count()) == before


def test_a_launch_that_is_cancelled_as_its_guest_starts_leaves_no_guest(world, bells):
    instance, operation = world.launch()
    world.hypervisor.before["ensure_running"] = lambda watch: engine.cancel(operation, reason="enough") and None
    bells.answer()
    instance.refresh_from_db()
    assert instance.state == "terminated"
    assert instance.uid not in world.hypervisor.guests, "a guest that is powered off would be one too many"


def test_a_disk_whose_undo_failed_is_in_error(world, bells, monkeypatch):
    def fail_at_the_end(run):
        raise Permanent("the trash is full")

    monkeypatch.setattr(volumes.build_volume, "undo", fail_at_the_end)
    instance, operation = world.launch()
    world.hypervisor.before["ensure_running"] = lambda watch: engine.cancel(operation, reason="enough") and None
    bells.answer()
    volume = Volume.objects.get()
    assert (volume.state, volume.room_held) == ("error", True)
    assert volume.error["message"] == "the trash is full"
    instance.refresh_from_db()
    assert instance.state == "error"
