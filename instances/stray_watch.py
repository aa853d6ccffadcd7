"""Guests of ours that are no instances of their node: looked at again, described, and reported as strays."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import structlog

from core.errors import Permanent
from hypervisor import local, neighbours, receipts, strays
from hypervisor.contract import GuestFacts, Hypervisor, Observation, Observed
from hypervisor.drivers.base import Driver
from hypervisor.models import Node, StrayKind
from hypervisor.strays import Sighting
from instances.models import Instance
from volumes import orphans

log = structlog.get_logger()


def seen(node: Node, uid: str) -> None:
    """Something was heard of a guest that no row knows; what was heard may be old. Raises Transient."""
    sighting = _stray(node, uid)
    if sighting is not None:
        strays.found(node, StrayKind.GUEST, sighting)


def seen_all(node: Node, looks: list[Observation]) -> None:
    """Report the strays among all guests of the node, and the disks that are nobody's. Raises Transient."""
    known = set(Instance.objects.on_node(node).values_list("uid", flat=True))
    # Each is looked at again after the rows were read: a guest may have been terminated in between.
    sightings = [found for look in looks if look.uid not in known and (found := _stray(node, look.uid))]
    strays.keep(node, StrayKind.GUEST, sightings)
    orphans.report(node, besides={disk["uid"] for found in sightings for disk in found.facts.get("disks", ())})


def _stray(node: Node, uid: str) -> Sighting | None:
    """The guest as it is now; None: it is gone, or an operator has adopted it meanwhile."""
    sighting = _look(node, uid)
    return None if Instance.objects.on_node(node).filter(uid=uid).exists() else sighting


def _look(node: Node, uid: str) -> Sighting | None:
    for hypervisor in node.hypervisors:
        driver = local.driver(hypervisor)
        look = driver.observe(uid)
        if look.state is not Observed.ABSENT:
            made = _made(driver, uid)
            return Sighting(uid, hypervisor, look.state.value, _facts(hypervisor, made) if made else {})
    return None


def _made(driver: Driver, uid: str) -> GuestFacts | None:
    """What the guest is made of; one that cannot be described is a stray all the same."""
    try:
        return driver.describe(uid)
    except Permanent as fault:
        log.warning("a stray cannot be described", guest=uid, why=fault.message)
        return None


def _facts(hypervisor: str, made: GuestFacts) -> dict:
    """Plain values, with what else this node knows: addresses that were heard, and the image of the first disk."""
    facts = asdict(made)
    if hypervisor != Hypervisor.FAKE:
        facts["nics"] = [{**nic, "ipv4": neighbours.ipv4_of(nic["mac"], nic["bridge"])} for nic in facts["nics"]]
        receipt = receipts.read(Path(made.disks[0].path)) if made.disks else None
        facts["base_sha256"] = str(receipt.facts.get("base_sha256", "")) if receipt else ""
    return facts
