"""Cancel and retry of instances: nothing is given back that is still in use, and nothing whole is made twice."""

from __future__ import annotations

import pytest

from core.errors import Permanent, Transient
from hypervisor import local
from hypervisor.models import NodeRoom
from instances import services
from instances.models import Instance
from networks.models import Lease
from operations import engine, protocol, register, timing
from operations.giving_up import give_up
from operations.models import Operation, Step
from operations.services import cancel_operation
from volumes.models import Volume

GIB = 2**30


def room(node):
    room = NodeRoom.objects.get(node=node)
    return room.vcpus_used, room.memory_mib_used, room.disk_bytes_used


def state_of(row):
    row.refresh_from_db()
    return row.state


def cancel(operation):
    return cancel_operation(operation, requested_by="the tests")


def retry(instance):
    return services.retry_instance(Instance.objects.get(pk=instance.pk), requested_by="the tests")


def terminate(instance):
    return services.terminate_instance(Instance.objects.get(pk=instance.pk), requested_by="the tests")


def refuse(watch):
    raise Permanent("the kernel is missing")


def assert_nothing_left(world, instance):
    assert state_of(instance) == "terminated"
    assert room(world.node) == (0, 0, 0)
    assert not Lease.objects.exists()
    assert not Volume.objects.exclude(state="deleted").exists()
    assert instance.uid not in world.hypervisor.guests or world.hypervisor.guests[instance.uid] == "halted"
    assert not Operation.objects.filter(ended_at=None).exists()


@pytest.fixture
def one_step_at_a_time(monkeypatch, bells):
    monkeypatch.setattr(protocol, "_goes_on_inline", lambda run, node, lane: False)

    def answer(count):
        for _ in range(count):
            protocol.run_step(*bells.pop(0))

    return answer


def test_a_cancelled_launch_whose_guest_cannot_be_stopped_gives_nothing_back(world, bells, quick):
    """Its guest may run, with that address and on that disk."""

    def started_and_cancelled(watch):
        world.hypervisor.guests[instance.uid] = "running"
        cancel(operation)
        watch.pause(30)

    world.hypervisor.before["ensure_running"] = started_and_cancelled
    world.hypervisor.before["ensure_absent"] = refuse
    instance, operation = world.launch()
    bells.answer()
    assert (state_of(operation), state_of(instance)) == ("cancelled", "error")
    assert room(world.node) == (1, 256, GIB)
    assert Lease.objects.count() == 1
    assert Volume.objects.get().state == "attached"
    assert "the kernel is missing" in operation.held[0]
    assert "the kernel is missing" in instance.error["message"]
    world.hypervisor.before.clear()
    terminate(instance)
    bells.answer()
    assert_nothing_left(world, instance)


def test_a_cancelled_launch_leaves_nothing_of_the_guest_that_it_had_started(world, bells, quick):
    def started_and_cancelled(watch):
        world.hypervisor.guests[instance.uid] = "running"
        cancel(operation)
        watch.pause(30)

    world.hypervisor.before["ensure_running"] = started_and_cancelled
    instance, operation = world.launch()
    bells.answer()
    assert state_of(operation) == "cancelled"
    assert_nothing_left(world, instance)
    assert world.hypervisor.guests == {}, "neither running nor remembered as halted"


def test_retry_starts_the_guest_on_the_disk_that_is_there(world, bells):
    world.hypervisor.before["ensure_running"] = refuse
    instance, failed = world.launch()
    bells.answer()
    assert state_of(instance) == "error"
    world.hypervisor.before.clear()
    again = retry(instance)
    assert [step.done_in for step in again.steps.all()] == [failed.uid, failed.uid, "", ""]
    bells.answer()
    assert (state_of(again), state_of(instance), instance.error) == ("done", "running", None)
    assert Volume.objects.get().state == "attached"
    assert room(world.node) == (1, 256, GIB)


def test_retry_brings_a_volume_in_error_back_through_its_states(world, bells, monkeypatch):
    class Broken:
        def build(self, *args, **kwargs):
            raise Permanent("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(local, "volumes", lambda hypervisor: Broken())
        instance, failed = world.launch()
        bells.answer()
    assert (state_of(instance), Volume.objects.get().state) == ("error", "error")
    again = retry(instance)
    assert [step.done_in for step in again.steps.all()] == [failed.uid, "", "", ""]
    assert (state_of(instance), Volume.objects.get().state) == ("initializing", "creating")
    bells.answer()
    assert (state_of(instance), Volume.objects.get().state, Volume.objects.get().error) == ("running", "attached", None)


@pytest.mark.parametrize("steps_answered", range(2))
def test_cancel_of_a_retry_gives_all_back(world, bells, one_step_at_a_time, steps_answered):
    world.hypervisor.before["ensure_running"] = refuse
    instance, _ = world.launch()
    one_step_at_a_time(5)
    assert state_of(instance) == "error"
    world.hypervisor.before.clear()
    again = retry(instance)
    one_step_at_a_time(steps_answered)
    cancel(again)
    bells.answer()
    assert state_of(again) == "cancelled"
    assert_nothing_left(world, instance)


def test_cancel_of_a_retry_without_the_old_steps_undoes_what_may_stand_there(world, bells):
    world.hypervisor.before["ensure_running"] = refuse
    instance, failed = world.launch()
    bells.answer()
    Step.objects.filter(operation=failed).delete()
    again = retry(instance)
    bells.clear()
    cancel(again)
    bells.answer()
    assert state_of(again) == "cancelled"
    assert any(Volume.objects.get().uid in said for said in again.undone), "the disk of the first launch"
    assert_nothing_left(world, instance)


def test_retry_of_a_terminate_that_failed_ends_it(world, running, bells):
    instance = running()
    world.hypervisor.before["ensure_absent"] = refuse
    terminate(instance)
    bells.answer()
    assert state_of(instance) == "error"
    world.hypervisor.before.clear()
    again = retry(instance)
    bells.answer()
    assert again.verb == "instance.terminate"
    assert_nothing_left(world, instance)


def test_retry_of_a_power_off_is_asked_with_the_same_words(world, running, bells):
    instance = running()
    world.hypervisor.before["ensure_halted"] = refuse
    services.poweroff_instance(instance, requested_by="the tests", timeout_s=7)
    bells.answer()
    assert state_of(instance) == "error"
    world.hypervisor.before.clear()
    again = retry(instance)
    assert again.steps.get().params["grace_s"] == 7
    bells.answer()
    assert state_of(instance) == "halted"


@pytest.mark.parametrize(
    ("verb", "before", "wanted"), [("terminate", "running", "running"), ("terminate", "halted", "halted")]
)
def test_a_terminate_that_is_cancelled_before_it_began_changes_nothing(world, running, bells, verb, before, wanted):
    instance = running()
    if before == "halted":
        services.poweroff_instance(instance, requested_by="the tests")
        bells.answer()
    operation = terminate(instance)
    cancel(operation)
    bells.answer()
    assert (state_of(operation), state_of(instance)) == ("cancelled", before)
    assert (instance.wanted, instance.error) == (before, None)
    assert room(world.node) == (1, 256, GIB)


def test_a_terminate_that_is_cancelled_half_way_is_in_error_and_ends_by_retry(
    world, running, bells, one_step_at_a_time
):
    instance = running()
    operation = terminate(instance)
    one_step_at_a_time(1)
    cancel(operation)
    bells.answer()
    assert (state_of(operation), state_of(instance)) == ("cancelled", "error")
    assert "terminate was cancelled: by the tests" in instance.error["message"]
    assert engine.allowed_verbs(instance, None) == ["retry", "terminate"]
    assert room(world.node) == (1, 256, GIB)
    retry(instance)
    bells.answer()
    assert_nothing_left(world, instance)


def test_a_power_off_that_is_cancelled_leaves_the_guest_wanted_running(world, running, bells, quick):
    instance = running()

    def hang(watch):
        cancel(operation)
        watch.pause(30)

    world.hypervisor.before["ensure_halted"] = hang
    operation = services.poweroff_instance(instance, requested_by="the tests")
    bells.answer()
    assert (state_of(operation), state_of(instance), instance.wanted) == ("cancelled", "running", "running")


def test_a_power_off_that_was_done_before_it_heard_of_the_cancel_is_done(world, running, bells):
    instance = running()
    world.hypervisor.before["ensure_halted"] = lambda watch: cancel(operation)
    operation = services.poweroff_instance(instance, requested_by="the tests")
    bells.answer()
    assert (state_of(operation), state_of(instance), instance.wanted) == ("done", "halted", "halted")


def test_a_launch_on_a_node_that_falls_silent_can_be_cancelled_and_cleaned_up_later(
    world, bells, one_step_at_a_time, monkeypatch
):
    instance, operation = world.launch()
    one_step_at_a_time(3)
    silence = f"node {world.node.uid}, silent since yesterday"
    monkeypatch.setattr(register, "node_troubles", [lambda asked: dict.fromkeys(asked, silence)])
    cancel(operation)
    give_up(timing.LEASE_S + 1)
    assert (state_of(operation), state_of(instance)) == ("cancelled", "error")
    assert operation.held[0] == f"volumes.build_volume was not undone: {silence}"
    assert (room(world.node), Lease.objects.count()) == ((1, 256, GIB), 1)
    bells.clear()
    terminate(instance)  # the node is back
    bells.answer()
    assert_nothing_left(world, instance)


def test_a_power_on_that_could_not_be_undone_is_not_called_halted(world, running, bells):
    instance = running()
    services.poweroff_instance(instance, requested_by="the tests")
    bells.answer()
    world.hypervisor.before["ensure_running"] = refuse
    world.hypervisor.before["ensure_halted"] = refuse
    services.poweron_instance(Instance.objects.get(pk=instance.pk), requested_by="the tests")
    bells.answer()
    assert state_of(instance) == "error"
    world.hypervisor.before.clear()
    retry(instance)
    bells.answer()
    assert state_of(instance) == "running"


def test_a_power_on_that_stumbles_is_not_retried_by_hand(world, running, bells):
    """It is halted again, and power-on is what goes on."""
    instance = running()
    services.poweroff_instance(instance, requested_by="the tests")
    bells.answer()

    def stumble(watch):
        raise Transient("no memory")

    world.hypervisor.before["ensure_running"] = stumble
    operation = services.poweron_instance(Instance.objects.get(pk=instance.pk), requested_by="the tests")
    bells.answer()
    cancel(operation)
    bells.answer()
    assert (state_of(instance), instance.wanted) == ("halted", "halted")
    assert engine.allowed_verbs(instance, None) == ["poweron", "terminate"]
