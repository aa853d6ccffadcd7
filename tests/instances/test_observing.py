"""What the node sees is written beside the state; the state follows only where no operation is open."""

from __future__ import annotations

import pytest

from core.errors import Permanent, Transient
from hypervisor.contract import Observation, Observed
from instances import observing, services
from instances.models import Instance
from operations import tally
from operations.locks import subject_lock
from operations.models import Event, Operation


def see(world, instance, state, reason="seen by the test"):
    """The node tells of a change that has really happened."""
    world.hypervisor.guests[instance.uid] = state
    observing.seen(world.node, Observation(instance.uid, state, reason))
    instance.refresh_from_db()


def test_a_guest_that_powers_itself_off_is_halted_and_wanted_so(world, running):
    instance = running()
    see(world, instance, Observed.HALTED, "shutdown")
    assert (instance.state, instance.observed, instance.wanted) == ("halted", "halted", "halted")
    assert world.hypervisor.released == [instance.uid]
    event = Event.objects.get(subject_uid=instance.uid, name="instance.observed")
    assert "seen halted" in event.message
    assert "shutdown" in event.message


@pytest.mark.parametrize("state", [Observed.CRASHED, Observed.ABSENT])
def test_a_guest_that_crashed_or_vanished_is_halted_but_still_wanted_running(world, running, state):
    instance = running()
    see(world, instance, state)
    assert (instance.state, instance.observed, instance.wanted) == ("halted", state.value, "running")


def test_a_guest_that_was_started_behind_our_back_is_running(world, running):
    instance = running()
    see(world, instance, Observed.HALTED)
    see(world, instance, Observed.RUNNING)
    assert (instance.state, instance.observed) == ("running", "running")


def test_a_paused_guest_keeps_its_state(world, running):
    instance = running()
    see(world, instance, Observed.PAUSED)
    assert (instance.state, instance.observed) == ("running", "paused")


def test_while_an_operation_is_open_an_observation_is_its_evidence(world, running, bells):
    instance = running()
    operation = services.poweroff_instance(instance, requested_by="the tests")
    services.Instance.objects.filter(pk=instance.pk).update(wanted="running")
    see(world, instance, Observed.HALTED)
    assert (instance.state, instance.observed, instance.wanted) == ("halting", "halted", "running")
    assert world.hypervisor.released == []
    assert Event.objects.filter(operation_uid=operation.uid, name="instance.observed").exists()
    bells.answer()
    instance.refresh_from_db()
    assert instance.state == "halted"


def test_an_event_that_is_older_than_the_last_operation_changes_nothing(world, running, bells):
    """It waited while the guest was powered off and on again."""
    instance = running()
    late = Observation(instance.uid, Observed.HALTED, "an earlier end")
    observing.seen(world.node, late)
    instance.refresh_from_db()
    assert (instance.state, instance.observed, instance.wanted) == ("running", "running", "running")
    assert world.hypervisor.released == []
    services.poweroff_instance(instance, requested_by="the tests")
    bells.answer()
    observing.seen(world.node, Observation(instance.uid, Observed.RUNNING, "an earlier start"))
    instance.refresh_from_db()
    assert (instance.state, instance.observed) == ("halted", "halted")


def test_an_event_that_meets_the_end_of_an_operation_changes_nothing(world, running, bells, monkeypatch):
    """The row was still moving when it was read; the power-off ended before the old sight of it could be written."""
    instance = running()
    operation = services.poweroff_instance(instance, requested_by="the tests")
    write = observing._write_observed

    def end_before(row, look):
        bells.answer()
        write(row, look)

    monkeypatch.setattr(observing, "_write_observed", end_before)
    observing.seen(world.node, Observation(instance.uid, Observed.RUNNING, "an old event"))
    instance.refresh_from_db()
    operation.refresh_from_db()
    assert (operation.state, instance.state) == ("done", "halted")


def test_nothing_is_concluded_while_the_hypervisor_cannot_be_asked(world, running):
    instance = running()
    world.hypervisor.is_mute = True
    with pytest.raises(Transient):
        observing.seen(world.node, Observation(instance.uid, Observed.HALTED))
    instance.refresh_from_db()
    assert instance.state == "running"


def test_the_observer_does_not_wait_for_a_step_that_works_on_the_guest(world, running):
    instance = running()
    with subject_lock(instance.uid, lambda seconds: pytest.fail("it was free")):
        see(world, instance, Observed.CRASHED)
    assert instance.state == "halted"
    assert world.hypervisor.released == [], "the step that has the lock clears up"


def test_a_look_at_everything_settles_what_differs_and_reports_strays_once(world, running):
    stays, went = running(), running()
    world.hypervisor.guests[went.uid] = Observed.CRASHED
    world.hypervisor.guests["i-stray000"] = Observed.RUNNING
    for _ in range(2):
        observing.seen_all(world.node, world.hypervisor.observe_all())
    stays.refresh_from_db()
    went.refresh_from_db()
    assert (stays.state, went.state) == ("running", "halted")
    [stray] = Event.objects.filter(name="node.stray")
    assert "i-stray000" in stray.message
    assert "i-stray000" in world.hypervisor.guests, "strays are reported, never destroyed"


def test_what_a_look_at_everything_finds_different_is_counted(world, running):
    running(), running()
    world.hypervisor.guests.clear()
    observing.seen_all(world.node, [])
    observing.seen_all(world.node, [])
    assert tally.counts(tally.RECONCILE) == {("missing", world.node.uid): 2}


def test_a_look_at_everything_leaves_moving_instances_alone(world):
    instance, _ = world.launch()
    observing.seen_all(world.node, [])
    instance.refresh_from_db()
    assert instance.state == "pending"


def test_an_old_look_at_everything_is_no_evidence(world, running):
    instance = running()
    observing.seen_all(world.node, [])  # taken before it was started
    instance.refresh_from_db()
    assert instance.state == "running"


@pytest.mark.parametrize("look", [lambda node: observing.seen_all(node, []), observing.node_started])
def test_a_guest_that_cannot_be_observed_hides_no_other(world, running, monkeypatch, look):
    poisoned, went, observe = running(), running(), world.hypervisor.observe

    def refuse(uid):
        if uid == poisoned.uid:
            raise Permanent("its name belongs to a stranger")
        return observe(uid)

    monkeypatch.setattr(world.hypervisor, "observe", refuse)
    world.hypervisor.guests.clear()
    look(world.node)
    assert Instance.objects.get(pk=poisoned.pk).state == "running"
    assert Instance.objects.get(pk=went.pk).observed == "absent"


def test_a_silent_node_makes_its_guests_unknown_and_nothing_else(world, running):
    instance = running()
    observing.node_silent(world.node)
    instance.refresh_from_db()
    assert (instance.state, instance.observed, instance.wanted) == ("running", "unknown", "running")
    observing.seen_all(world.node, world.hypervisor.observe_all())
    instance.refresh_from_db()
    assert instance.observed == "running"


def test_a_node_that_starts_anew_brings_up_what_is_wanted_running_as_operations(world, running, bells):
    wanted, unwanted = running(), running()
    services.poweroff_instance(unwanted, requested_by="the tests")
    bells.answer()
    world.hypervisor.guests.clear()  # the machine was booted
    observing.node_started(world.node)
    bells.answer()
    for instance in (wanted, unwanted):
        instance.refresh_from_db()
    assert (wanted.state, unwanted.state) == ("running", "halted")
    operation = Operation.objects.get(subject_uid=wanted.uid, verb="instance.poweron")
    assert "start of node" in operation.requested_by


def test_a_node_that_starts_before_its_hypervisor_answers_tries_again(world, running, bells):
    instance = running()
    world.hypervisor.guests.clear()
    world.hypervisor.is_mute = True
    with pytest.raises(Transient):
        observing.node_started(world.node)
    instance.refresh_from_db()
    assert instance.state == "running"
    world.hypervisor.is_mute = False
    observing.node_started(world.node)
    bells.answer()
    instance.refresh_from_db()
    assert (instance.state, Instance.objects.get().observed) == ("running", "running")


def test_draining_a_node_powers_off_and_leaves_what_is_wanted(world, running, bells, monkeypatch):
    monkeypatch.setattr(observing, "DRAIN_LOOK_S", 0.01)
    instances = [running(), running()]
    said = []
    for sentence in observing.drain(world.node):
        said.append(sentence)
        bells.answer()
    for instance in instances:
        instance.refresh_from_db()
        assert (instance.state, instance.wanted) == ("halted", "running")
    assert len([sentence for sentence in said if "is done" in sentence]) == 2
