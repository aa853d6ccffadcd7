"""The walk: one fault in one step after the other of a verb's plan, and what must be true after each.

A fault is a few failpoints and the states in which an operation may end that meets them. It is told by its name, and
so is a failure: "instance.launch, step 2 volumes.build_volume, killed after its effect: …".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from operations import register
from operations.models import Operation
from operations.register import Verb
from tests.sweep.world import World

DELAYS = frozenset({"done"})


@dataclass(frozen=True)
class Point:
    """A failpoint in the step that the walk is at. `everywhere`: at each place that the work passes, one by one."""

    moment: str
    action: str
    undoing: bool = False
    everywhere: bool = False


@dataclass(frozen=True)
class Fault:
    """`ends`: as what an operation that meets it may end. `of_undo`: for steps that can be undone."""

    name: str
    points: tuple[Point, ...]
    ends: frozenset[str] = DELAYS
    of_undo: bool = False


NOTHING = Fault("nothing", ())

DEATHS = {
    "before its effect": "before",
    "after its effect": "after",
    "between effect and settling": "settling",
    "between settling and COMMIT": "uncommitted",
    "between COMMIT and the next bell": "committed",
}
FAILED = frozenset({"failed"})
CANCELLED = frozenset({"cancelled"})
TOO_LATE = frozenset({"cancelled", "done"})  # all was done by then, and nothing of it can be undone


def _faults() -> Iterator[Fault]:
    yield Fault("done twice", (Point("before", "twice"),))
    for when in ("before", "after"):
        yield Fault(f"Transient {when} its effect", (Point(when, "transient"),))
        yield Fault(f"Permanent {when} its effect", (Point(when, "permanent"),), FAILED)
        yield Fault(f"unforeseen exception {when} its effect", (Point(when, "unexpected"),), FAILED)
        yield Fault(f"cancelled {when} its effect", (Point(when, "cancel"),), TOO_LATE)
    for when, moment in DEATHS.items():
        yield Fault(f"killed {when}", (Point(moment, "kill"),))
    yield Fault("killed during its effect", (Point("during", "kill", everywhere=True),))


def _undo_faults() -> Iterator[Fault]:
    """The step has done its work when the operation is cancelled: now its undo meets the fault."""
    cancel = Point("after", "cancel")

    def fault(name: str, moment: str, action: str, **rest: Any) -> Fault:
        return Fault(f"undo {name}", (cancel, Point(moment, action, undoing=True, **rest)), CANCELLED, of_undo=True)

    yield fault("done twice", "before", "twice")
    for when in ("before", "after"):
        yield fault(f"Transient {when} its effect", when, "transient")
        yield fault(f"Permanent {when} its effect", when, "permanent")
        yield fault(f"unforeseen exception {when} its effect", when, "unexpected")
    for when, moment in DEATHS.items():
        yield fault(f"killed {when}", moment, "kill")
    yield fault("killed during its effect", "during", "kill", everywhere=True)
    half_made = (Point("before", "cancel"), Point("during", "kill", everywhere=True))
    yield Fault("undo of what was killed during its effect", half_made, CANCELLED, of_undo=True)


FAULTS = {fault.name: fault for fault in (*_faults(), *_undo_faults())}


def walk(world: World, verb: Verb, fault: Fault) -> None:
    """Put the fault into each step of the verb's plan; AssertionError tells the first thing that is wrong then.

    A fault that delays only strikes all steps of one operation, each once; others need an operation for each step.
    """
    steps = {position: task for position, task in plan_of(world, verb).items() if _can_meet(task, fault)}
    what = f"{verb.full_name}, {{}}, {fault.name}"
    places = _places(world, verb, fault, steps, what)
    if fault.ends == DELAYS:
        for turn in range(max(map(len, places.values()))):
            here = {position: found[turn] for position, found in places.items() if turn < len(found)}
            where = ", ".join(f"step {position} {steps[position]} {place}".strip() for position, place in here.items())
            meet(world, verb, fault, here, what.format(where))
        return
    for position, found in places.items():
        for place in found:
            meet(world, verb, fault, {position: place}, what.format(f"step {position} {steps[position]} {place}"))


def _can_meet(task: str, fault: Fault) -> bool:
    return register.tasks[task].undo is not None or not fault.of_undo


def plan_of(world: World, verb: Verb) -> dict[int, str]:
    """The tasks of the steps that the verb does, by position, from a run in which nothing goes wrong."""
    if verb.full_name not in world.plans:
        operation = meet(world, verb, NOTHING, {}, f"{verb.full_name}, undisturbed")
        steps = operation.steps.filter(done_in="").order_by("position")  # others were done in the operation it resumes
        world.plans[verb.full_name] = dict(steps.values_list("position", "task"))
    return world.plans[verb.full_name]


def _places(world: World, verb: Verb, fault: Fault, steps: dict[int, str], what: str) -> dict[int, list[str]]:
    """The places inside of each step where the fault strikes, one after the other; [""] if it strikes elsewhere."""
    strikes = next((point for point in fault.points if point.everywhere), None)
    if strikes is None:
        return {position: [""] for position in steps}
    places = {}
    recorder = Point("during", "record", undoing=strikes.undoing)
    if strikes.undoing:
        for position, task in steps.items():
            recorded = Fault("recorded", (fault.points[0], recorder), CANCELLED)
            meet(world, verb, recorded, {position: ""}, what.format(f"step {position} {task}, recorded"), found=places)
    else:
        recorded = Fault("recorded", (recorder,))
        meet(world, verb, recorded, dict.fromkeys(steps, ""), what.format("recorded"), found=places)
    return places


def meet(
    world: World,
    verb: Verb,
    fault: Fault,
    places: dict[int, str],
    what: str,
    *,
    frm: str | None = None,
    found: dict[int, list[str]] | None = None,
) -> Operation:
    """One operation that meets the fault in the steps at these positions, and what must be true afterwards.

    `found` takes up, by position, the places that recording failpoints have seen.
    """
    world.forget_images()
    subject = None if world.gives_birth(verb) else world.ready(verb, frm)
    armed = [
        world.arm(position, point.moment, point.action, undoing=point.undoing, place=place if point.everywhere else "")
        for position, place in places.items()
        for point in fault.points
    ]
    subject, operation = world.do(verb.full_name, subject)
    state = world.ended(operation, what)
    if found is not None:
        found.update({point.position: world.places(point) for point in armed if point.action == "record"})
    missed = world.missed([point for point in armed if not point.place])  # the way to a place may be another each time
    world.disarm()
    said = f"{operation.uid} is {state}: {operation.error}"
    assert not missed, f"{what}: nobody came by {missed}; {said}\n{world.last_words()}"
    assert state in fault.ends, f"{what}: {said}\n{world.last_words()}"
    assert_settled(subject, operation, what)
    assert_at_rest(world, what)
    world.bury(subject)
    assert_at_rest(world, f"{what}, and then its end")
    return operation


def assert_settled(subject: Any, operation: Operation, what: str) -> None:
    """The subject is where the verb's row says, and in error if something could not be undone."""
    subject.refresh_from_db()
    verb = register.verb_named(operation.verb)  # of an operation that resumes another one: that one's
    ends = {"done": verb.to, "failed": verb.failed_to, "cancelled": verb.cancelled_to}
    stuck = any("could not be undone" in sentence for sentence in operation.held)
    expected = "error" if stuck else ends[operation.state]
    told = f"{operation.uid} is {operation.state}; held: {operation.held}"
    assert subject.state == expected, f"{what}: {subject.uid} is {subject.state}, not {expected}; {told}"
    if subject.state == "error":
        assert (subject.error or {}).get("message"), f"{what}: {subject.uid} is in error and says no reason; {told}"


def assert_at_rest(world: World, what: str) -> None:
    wrong = world.violations()
    assert not wrong, f"{what}:\n" + "\n".join(wrong)
