"""Steps that start, stop and remove guests: load rows, make the spec, call the driver, settle."""

from __future__ import annotations

from collections.abc import Collection

from django.db.models.functions import Now

from hypervisor import local
from hypervisor.contract import Observation, Observed
from hypervisor.reconcile import ENDED
from instances.models import Instance
from instances.specs import guest_spec
from instances.states import InstanceState
from operations import register
from operations.models import Operation, Step
from operations.run import StepRun
from operations.states import OperationState
from operations.task import step_task


def _instance(run: StepRun) -> Instance:
    return Instance.objects.for_its_node().get(uid=run.subject_uid)


def _said(observation: Observation) -> dict:
    return {"observed": observation.state.value, "reason": observation.reason}


def _see(run: StepRun, result: dict) -> None:
    Instance.objects.filter(uid=run.subject_uid).update(
        observed=result["observed"], observed_reason=result["reason"], observed_at=Now()
    )


def _seen_since(operation: Operation, step: Step, goal: Collection[Observed]) -> str:
    """What the node saw of the guest after the step began, if that is its goal; being unknown is none."""
    row = Instance.objects.get(uid=operation.subject_uid)
    if row.observed not in {word.value for word in goal} or row.observed_at <= step.claimed_at:
        return ""
    return f"{row.uid} was seen {row.observed} on {step.node} at {row.observed_at:%H:%M:%S} UTC, after it began"


@step_task("instances.start_guest")
def start_guest(run: StepRun) -> dict:
    """Have the guest running."""
    instance = _instance(run)
    return _said(local.driver(instance.hypervisor).ensure_running(guest_spec(instance), run))


start_guest.settles(_see)


@start_guest.proven_by
def seen_running(operation: Operation, step: Step) -> str:
    return _seen_since(operation, step, {Observed.RUNNING})


@start_guest.undoes
def unstart_guest(run: StepRun) -> str:
    """Off again. A launch that was cancelled leaves nothing of its guest: the instance is terminated by it."""
    instance = _instance(run)
    driver, spec = local.driver(instance.hypervisor), guest_spec(instance)
    verb = register.verb_named(run.operation.verb)
    if run.operation.ending == OperationState.CANCELLED and verb.cancelled_to == InstanceState.TERMINATED:
        driver.ensure_absent(spec, run)
        return f"{instance.uid} was removed from {run.step.node}"
    observation = driver.ensure_halted(spec, run, grace_s=0)
    return f"{instance.uid} was powered off on {run.step.node} ({observation.reason or observation.state.value})"


@step_task("instances.stop_guest")
def stop_guest(run: StepRun) -> dict:
    """Have the guest powered off. `params`: grace_s, how long it may take to do so itself."""
    instance = _instance(run)
    spec = guest_spec(instance)
    return _said(local.driver(instance.hypervisor).ensure_halted(spec, run, grace_s=run.params["grace_s"]))


stop_guest.settles(_see)


@stop_guest.proven_by
def seen_ended(operation: Operation, step: Step) -> str:
    return _seen_since(operation, step, ENDED)


@step_task("instances.remove_guest")
def remove_guest(run: StepRun) -> dict:
    """Leave nothing of the guest on its node but its disks."""
    instance = _instance(run)
    return _said(local.driver(instance.hypervisor).ensure_absent(guest_spec(instance), run))


remove_guest.settles(_see)
