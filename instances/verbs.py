"""Everything that can be done to an instance, as one table."""

from __future__ import annotations

from typing import Any

from django.db.models.functions import Now

from core.claim import claim
from hypervisor import rooms
from instances import plans
from instances.models import Instance
from instances.states import InstanceState, Wanted
from networks import leases
from operations.models import Operation
from operations.register import Verb
from operations.states import OperationState
from volumes import tasks as volumes

S = InstanceState


def _want_running(instance: Instance, operation: Operation) -> None:
    Instance.objects.filter(pk=instance.pk).update(wanted=Wanted.RUNNING)


def _want_halted(instance: Instance, operation: Operation) -> None:
    if not operation.params.get("keep_wanted"):  # a node that goes down leaves what the owner wants
        Instance.objects.filter(pk=instance.pk).update(wanted=Wanted.HALTED)


def _go_on_running(instance: Instance, operation: Operation) -> None:
    """What was to end and was cancelled is wanted running again."""
    if instance.state == S.RUNNING and operation.state == OperationState.CANCELLED:
        Instance.objects.filter(pk=instance.pk).update(wanted=Wanted.RUNNING)


def _stay_halted(instance: Instance, operation: Operation) -> None:
    if instance.state == S.HALTED and operation.state == OperationState.CANCELLED:
        Instance.objects.filter(pk=instance.pk).update(wanted=Wanted.HALTED)


def _end_terminate(instance: Instance, operation: Operation) -> None:
    _go_on_running(instance, operation)
    _give_back(instance, operation)


def _give_back(instance: Instance, operation: Operation) -> None:
    """A terminated instance holds nothing: no room, no slot, no addresses."""
    if instance.state != S.TERMINATED:
        return
    # Locks in the order of a launch: the node's room, then the network's addresses.
    if claim(Instance.objects.filter(pk=instance.pk, room_held=True), room_held=False):
        rooms.give_back(instance.node, vcpus=instance.vcpus, memory_mib=instance.memory_mib)
    for vif in instance.vifs.all():
        leases.release(holder=vif.uid)
    Instance.objects.filter(pk=instance.pk).update(slot=None, terminated_at=Now())


def _end_launch(instance: Instance, operation: Operation) -> None:
    """A cancelled launch leaves nothing, a failed one says what it still holds."""
    if instance.state == S.ERROR:
        leases_held = ", ".join(instance.vifs.filter(lease__isnull=False).values_list("lease__ipv4", flat=True))
        operation.held.append(
            f"{instance.uid} keeps its room on {instance.node} and its addresses ({leases_held}) until it is terminated"
        )
    elif instance.state == S.TERMINATED:
        if operation.steps.filter(task=volumes.build_volume.name, claimed_at=None).exists():
            for link in instance.attachments.select_related("volume__node"):
                volumes.mark_deleted(link.volume)  # it was promised only; one that was begun is undone by its step
        _give_back(instance, operation)


def _unless_terminating(params: dict[str, Any], open_verb: str) -> bool:
    return open_verb != TERMINATE.full_name


def _when_forced(params: dict[str, Any], open_verb: str) -> bool:
    """Pulling the plug ends what waits for the guest; a launch has none yet, and a terminate must not be stopped."""
    return bool(params.get("force")) and open_verb in (POWERON.full_name, POWEROFF.full_name)


def _verb(name: str, frm: set[str], to: str, plan: Any = None, **rest: Any) -> Verb:
    return Verb("instance", name, frozenset(frm), to, plan, **rest)


#                 name         from                              to            plan
LAUNCH = _verb(
    "launch", {S.SCHEDULING}, S.RUNNING, plans.launch, cancelled_to=S.TERMINATED, on_stopped=_end_launch, offered=False
)
POWERON = _verb(
    "poweron",
    {S.HALTED},
    S.RUNNING,
    plans.poweron,
    failed_to=S.HALTED,
    cancelled_to=S.HALTED,
    on_begin=_want_running,
    on_end=_stay_halted,
    says="makes the network whole and starts the guest from its disks",
)
POWEROFF = _verb(
    "poweroff",
    {S.RUNNING},
    S.HALTED,
    plans.poweroff,
    cancelled_to=S.RUNNING,
    supersedes=_when_forced,
    on_begin=_want_halted,
    on_end=_go_on_running,
    says="asks the guest to power off, and pulls the plug when its time is over (with force: at once)",
)
TERMINATE = _verb(
    "terminate",
    {S.RUNNING, S.HALTED, S.ERROR},
    S.TERMINATED,
    plans.terminate,
    supersedes=_unless_terminating,
    on_begin=_want_halted,
    on_end=_end_terminate,
    says="removes the guest, gives room and addresses back, and moves its disks to the trash of the node",
)
#                                                 as the operation that left it in error
RETRY = _verb(
    "retry",
    {S.ERROR},
    "",
    resumes=True,
    says="goes on where the operation that failed stopped, and uses again what is whole",
)

INSTANCE = [LAUNCH, POWERON, POWEROFF, RETRY, TERMINATE]
