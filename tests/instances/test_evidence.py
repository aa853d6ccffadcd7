"""A step past its deadline that nobody works on is settled by what its node has seen since it began, or by nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from hypervisor.contract import Observation, Observed
from instances import observing, services
from instances.models import Instance
from instances.plans import SPARE_S
from operations import engine, protocol, register, timing
from operations.evidence import settle_by_evidence
from operations.models import Event, Step
from operations.recovery import lose

LONG_ENOUGH_S = timing.LEASE_S + 1


def state_of(row):
    row.refresh_from_db()
    return row.state


def see(world, instance, state):
    world.hypervisor.guests[instance.uid] = state
    observing.seen(world.node, Observation(instance.uid, state, "seen by the test"))


@pytest.fixture
def lost_start(world, bells, monkeypatch):
    """A launch whose worker died as it started the guest, on a lane that does not come back: (instance, operation)."""
    monkeypatch.setattr(protocol, "_goes_on_inline", lambda run, node, lane: False)
    instance, operation = world.launch()
    for _ in range(3):
        protocol.run_step(*bells.pop(0))
    bells.clear()
    assert state_of(instance) == "starting"
    begin_and_lose(operation)
    return instance, operation


def begin_and_lose(operation):
    """As a worker that claims the step and is never heard of again."""
    step = Step.objects.filter(operation=operation, state="queued")
    step.update(state="running", worker="gone", claimed_at=Now(), lease_until=Now())
    lose(Step.objects.get(operation=operation, state="running"), "the test says so")


def pass_deadline(operation):
    Step.objects.filter(operation=operation, state="queued").update(claimed_at=Now() - timedelta(seconds=SPARE_S + 1))


def test_a_guest_that_was_seen_running_since_is_running(world, lost_start):
    instance, operation = lost_start
    pass_deadline(operation)
    see(world, instance, Observed.RUNNING)
    settle_by_evidence(LONG_ENOUGH_S)
    assert (state_of(operation), state_of(instance)) == ("done", "running")
    step = Step.objects.get(operation=operation, task="instances.start_guest")
    assert f"{instance.uid} was seen running" in step.result["evidence"]
    assert [past["outcome"] for past in step.attempts] == ["lost", "done"]
    told = Event.objects.get(operation_uid=operation.uid, name="instance.launch.evidence")
    assert "past its deadline and counts as done" in told.message


def test_before_the_deadline_the_lane_is_waited_for(world, lost_start):
    instance, _ = lost_start
    see(world, instance, Observed.RUNNING)
    settle_by_evidence(LONG_ENOUGH_S)
    assert state_of(instance) == "starting"


@pytest.mark.parametrize("state", [Observed.HALTED, Observed.ABSENT, Observed.UNKNOWN, None])
def test_without_evidence_nothing_is_concluded(world, lost_start, state):
    instance, operation = lost_start
    pass_deadline(operation)
    if state is not None:
        see(world, instance, state)
    settle_by_evidence(LONG_ENOUGH_S)
    assert state_of(instance) == "starting"
    assert Step.objects.get(operation=operation, task="instances.start_guest").state == "queued"


def test_what_was_seen_before_the_step_began_is_no_evidence(world, lost_start):
    instance, operation = lost_start
    pass_deadline(operation)
    see(world, instance, Observed.RUNNING)
    Instance.objects.filter(pk=instance.pk).update(observed_at=Now() - timedelta(seconds=2 * SPARE_S))
    settle_by_evidence(LONG_ENOUGH_S)
    assert state_of(instance) == "starting"


def test_a_node_that_falls_silent_proves_no_end(world, running, bells):
    instance = running()
    operation = services.poweroff_instance(instance, requested_by="the tests", timeout_s=0)
    bells.clear()
    begin_and_lose(operation)
    pass_deadline(operation)
    observing.node_silent(world.node)
    settle_by_evidence(LONG_ENOUGH_S)
    assert state_of(instance) == "halting"
    see(world, instance, Observed.CRASHED)
    settle_by_evidence(LONG_ENOUGH_S)
    assert (state_of(operation), state_of(instance)) == ("done", "halted")


def test_a_step_that_is_to_be_cancelled_is_not_settled(world, lost_start, bells):
    instance, operation = lost_start
    pass_deadline(operation)
    see(world, instance, Observed.RUNNING)
    engine.cancel(operation, reason="by the tests")
    settle_by_evidence(LONG_ENOUGH_S)
    bells.answer()
    assert (state_of(operation), state_of(instance)) == ("cancelled", "terminated")


def test_a_look_at_the_evidence_that_goes_wrong_holds_up_no_other(world, lost_start, monkeypatch):
    _, operation = lost_start
    _, other = world.launch()
    pass_deadline(operation)
    Step.objects.filter(operation=other, task="instances.start_guest").update(
        state="queued", claimed_at=Now() - timedelta(days=1)
    )
    asked = set()

    def stumble(operation, step):
        asked.add(operation.uid)
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(register.tasks["instances.start_guest"], "evidence", stumble)
    settle_by_evidence(LONG_ENOUGH_S)
    assert asked == {operation.uid, other.uid}
