"""What nodes see of guests, written on the instances: `observed` always, `state` by the engine's rules."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import structlog
from django.db import transaction
from django.db.models.functions import Now

from core.claim import claim
from core.errors import Conflict, Permanent, Refusal, WorkError
from hypervisor import local
from hypervisor.contract import Observation, Observed
from hypervisor.models import Node
from hypervisor.reconcile import ENDED, Belief, Kind, compare
from instances import stray_watch
from instances.models import Instance
from instances.states import MOVING, InstanceState, Wanted
from instances.verbs import POWEROFF, POWERON
from operations import engine, tally
from operations.events import note
from operations.locks import subject_lock
from operations.models import Operation

log = structlog.get_logger()

DRAIN_GRACE_S = 60
DRAIN_LOOK_S = 0.5


# Running, or on the way to it: a guest that is seen to run then is no news.
_MAY_RUN = frozenset({InstanceState.RUNNING, InstanceState.STARTING})


def seen(node: Node, look: Observation) -> None:
    """One guest of this node changed, or was found different."""
    if _is_as_expected(node, look):
        return
    instance = Instance.objects.on_node(node).filter(uid=look.uid).first()
    if instance is None:
        stray_watch.seen(node, look.uid)
        return
    if _contradicts(instance, look):
        look = _newest(instance, look)
    _write_observed(instance, look)
    if look.state is Observed.RUNNING:
        evidence = f"{instance.uid} was seen running on {node}" + (f": {look.reason}" if look.reason else "")
        engine.observed(
            instance, InstanceState.RUNNING, frm=_if_still(instance, InstanceState.HALTED), evidence=evidence
        )
    elif look.state in ENDED:
        _ended(node, instance, look)


def _is_as_expected(node: Node, look: Observation) -> bool:
    """Most looks tell what an operation of ours has just done; those are written at once, and nothing follows."""
    if look.state is not Observed.RUNNING:
        return False
    running = Instance.objects.on_node(node).filter(uid=look.uid, state__in=_MAY_RUN)
    return claim(running, observed=look.state.value, observed_reason=look.reason[:255], observed_at=Now())


def _contradicts(instance: Instance, look: Observation) -> bool:
    if instance.state == InstanceState.RUNNING:
        return look.state in ENDED
    return instance.state == InstanceState.HALTED and look.state is Observed.RUNNING


def _newest(instance: Instance, look: Observation) -> Observation:
    """An event may be older than an operation that has ended since: what it tells must still be so.

    If it is, the event's own word is kept, for it knows how the guest ended. Raises Transient when nobody can ask.
    """
    now = local.driver(instance.hypervisor).observe(instance.uid)
    return now if (now.state is Observed.RUNNING) != (look.state is Observed.RUNNING) else look


def _if_still(instance: Instance, state: str) -> frozenset[str]:
    """Only if the row said so before the look was found to be new: an operation may have ended since."""
    return frozenset({state}) & {instance.state}


def _ended(node: Node, instance: Instance, look: Observation) -> None:
    evidence = f"{instance.uid} was seen {look.state.value} on {node}: {look.reason or 'no reason is known'}"
    with transaction.atomic():
        still_running = _if_still(instance, InstanceState.RUNNING)
        ended = engine.observed(instance, InstanceState.HALTED, frm=still_running, evidence=evidence)
        if ended and look.state is Observed.HALTED:
            # The guest's own wish; a crash or a vanished guest says nothing of wishes.
            Instance.objects.filter(pk=instance.pk).update(wanted=Wanted.HALTED)
    if ended:
        _release(instance)


def _release(instance: Instance) -> None:
    """Give back what the guest left on its node, unless a step works on it by now: the observer waits for none."""
    try:
        with subject_lock(instance.uid, _do_not_wait):
            if engine.holder_of(instance.uid) is None:
                local.driver(instance.hypervisor).release(instance.uid)
    except _WorkedOn:
        log.info("a step works on the guest that ended; it clears up", instance=instance.uid)


class _WorkedOn(Exception):
    """Somebody holds the lock of the subject."""


def _do_not_wait(seconds: float) -> None:
    raise _WorkedOn


def _write_observed(instance: Instance, look: Observation) -> None:
    Instance.objects.filter(pk=instance.pk).update(
        observed=look.state.value, observed_reason=look.reason[:255], observed_at=Now()
    )


def seen_all(node: Node, looks: list[Observation]) -> None:
    """Settle the differences between what is believed and a look at everything."""
    instances = {row.uid: row for row in Instance.objects.on_node(node).exclude(state__in=MOVING)}
    beliefs = [Belief(uid, row.state == InstanceState.RUNNING) for uid, row in instances.items()]
    findings = compare(beliefs, looks)
    for kind, times in Counter(finding.kind for finding in findings).items():
        if kind in (Kind.MISSING, Kind.DIFFERS):
            tally.count(tally.RECONCILE, kind, node.uid, times=times)
    for finding in findings:
        if finding.kind in (Kind.MISSING, Kind.DIFFERS):
            _look_again(node, instances[finding.uid])
        elif finding.kind is Kind.AGREES and finding.uid in instances:
            _write_if_changed(instances[finding.uid], finding.seen)
    stray_watch.seen_all(node, looks)


def _look_again(node: Node, instance: Instance) -> None:
    """The look at everything may be older than the row: only a fresh one counts as evidence."""
    try:
        seen(node, local.driver(instance.hypervisor).observe(instance.uid))
    except WorkError as fault:  # of one guest; the others are looked at all the same
        log.warning("the guest cannot be observed; nothing is concluded", instance=instance.uid, why=fault.message)


def _write_if_changed(instance: Instance, look: Observation) -> None:
    if look.state.value != instance.observed:
        _write_observed(instance, look)


def nodes_of(uids: list[str]) -> dict[str, int]:
    """The node of each of these guests that a live instance knows."""
    return dict(Instance.objects.live().filter(uid__in=uids).values_list("uid", "node"))


def node_silent(node: Node) -> None:
    """Nobody can say how its guests are."""
    Instance.objects.on_node(node).update(
        observed=Observed.UNKNOWN, observed_reason=f"{node.uid} is silent", observed_at=Now()
    )


def node_started(node: Node) -> None:
    """The node starts anew: what ran is gone, and the guests that are wanted running are queued first in its lane.

    Raises Transient while a hypervisor cannot be asked; may be called again.
    """
    for instance in Instance.objects.on_node(node).filter(state=InstanceState.RUNNING):
        try:
            seen(node, local.driver(instance.hypervisor).observe(instance.uid))
        except Permanent as fault:  # asking again helps nobody, and the other guests need their lanes
            log.warning("the guest cannot be observed; nothing is concluded", instance=instance.uid, why=fault.message)
    wanted = Instance.objects.on_node(node).filter(state=InstanceState.HALTED, wanted=Wanted.RUNNING)
    for instance in wanted.order_by("id"):
        try:
            engine.begin(POWERON, instance, requested_by=f"start of node {node.uid}")
        except Refusal as refused:
            note("instance", instance.uid, "instance.poweron.refused", refused.detail, account_id=instance.account_id)


def drain(node: Node) -> Iterator[str]:
    """Power off every guest of the node in order, `wanted` left as it is; says how it goes until all are off."""
    begun: dict[str, Operation] = {}
    busy_said: set[str] = set()
    while True:
        for instance in Instance.objects.on_node(node).filter(state=InstanceState.RUNNING):
            if instance.uid in begun and begun[instance.uid].ended_at is None:
                continue
            try:
                params = {"timeout_s": DRAIN_GRACE_S, "keep_wanted": True}
                begun[instance.uid] = engine.begin(POWEROFF, instance, requested_by="drain of the node", params=params)
                yield f"{instance.uid} is asked to power off ({begun[instance.uid].uid})"
            except Conflict as busy:
                if instance.uid not in busy_said:
                    busy_said.add(instance.uid)
                    yield busy.detail
        time.sleep(DRAIN_LOOK_S)
        for uid, operation in list(begun.items()):
            if operation.ended_at is None:
                operation.refresh_from_db()
                if operation.ended_at is not None:
                    yield f"{uid}: the power-off is {operation.state}"
        waiting = Instance.objects.on_node(node).filter(
            state__in=[InstanceState.RUNNING, InstanceState.HALTING, InstanceState.SHUTTINGDOWN]
        )
        if all(operation.ended_at for operation in begun.values()) and not waiting.exists():
            return
