"""A noun that the product does not have, with verbs that keep their promises and verbs that break them.

The sweep must take up the good ones without a word in its own files, and must find what is wrong with the others.
A parcel is an image row seen with other eyes; its effect is one file below the node's directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypervisor import local
from operations import register
from operations.plan import Plan, step
from operations.register import Verb
from operations.run import StepRun
from operations.task import StepTask, step_task
from volumes.models import Image


class Parcel(Image):
    """`available` is packed, `pending` being packed."""

    KIND = "parcel"

    class Meta:
        proxy = True
        app_label = "volumes"


def _file(run: StepRun) -> Path:
    folder = local.node_dir() / "parcels"
    folder.mkdir(exist_ok=True)
    return folder / run.subject_uid


@step_task("tests.pack")
def pack(run: StepRun) -> dict:
    fresh = _file(run).with_suffix(".part")
    fresh.write_text(run.subject_uid)
    fresh.replace(_file(run))
    return {}


@pack.undoes
def unpack(run: StepRun) -> str:
    _file(run).with_suffix(".part").unlink(missing_ok=True)
    _file(run).unlink(missing_ok=True)
    return f"{run.subject_uid} was unpacked"


@step_task("tests.ship")
def ship(run: StepRun) -> dict:
    _file(run).unlink(missing_ok=True)
    return {}


@step_task("tests.pack_once")
def pack_once(run: StepRun) -> dict:
    """Broken: cannot be done a second time."""
    _file(run).open("x").close()
    return {}


pack_once.undoes(unpack)


@step_task("tests.pack_each_time")
def pack_each_time(run: StepRun) -> dict:
    """Broken: each attempt but the first makes another one."""
    number = run.step.attempt
    (_file(run) if number == 1 else _file(run).with_suffix(f".{number}")).touch()
    return {}


@step_task("tests.pack_for_good")
def pack_for_good(run: StepRun) -> dict:
    _file(run).touch()
    return {}


@pack_for_good.undoes
def say_only(run: StepRun) -> str:
    """Broken: undoes nothing."""
    return f"{run.subject_uid} was unpacked"


def _verb(name: str, frm: str, to: str, *tasks: StepTask, **rest: Any) -> Verb:
    def plan(parcel: Parcel, params: dict[str, Any]) -> Plan:
        node = local.this_node().uid
        moves = {parcel: "creating"}
        return Plan(tuple(step(task, node=node, lane="ops", moves=moves, deadline_s=60) for task in tasks))

    return Verb("parcel", name, frozenset({frm}), to, plan, **rest)


GOOD = [
    _verb("pack", "pending", "available", pack, cancelled_to="deleted"),
    _verb("ship", "available", "deleted", ship, cancelled_to="available"),
    _verb("discard", "error", "deleted", ship),
]
BROKEN = [
    _verb("pack_once", "pending", "available", pack_once, cancelled_to="deleted"),
    _verb("pack_each_time", "pending", "available", pack_each_time, cancelled_to="deleted"),
    _verb("pack_for_good", "pending", "available", pack_for_good, cancelled_to="deleted"),
]


def register_all() -> None:
    """Workers know all of them."""
    register.register_noun(Parcel, [*GOOD, *BROKEN])


@contextmanager
def registered() -> Iterator[None]:
    """The tests know them in this block."""
    register_all()
    try:
        yield
    finally:
        del register.nouns[Parcel.KIND]
