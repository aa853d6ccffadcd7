"""A small noun for the engine's tests: volumes with verbs of our own, whose steps do what the test says.

`acts` holds what a step does, by the name in its parameters; the tests add to it, and worker processes started by the
tests know those that are defined here: they write into a journal file and wait for files.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from accounts.models import Account
from core.errors import Permanent
from hypervisor.contract import SourceSpec
from hypervisor.image_store import ImageStore
from operations import engine, register
from operations.models import Operation, Step
from operations.plan import Plan, PlannedStep
from operations.register import Verb
from operations.run import StepRun
from operations.task import step_task
from volumes.models import Volume

Act = Callable[[StepRun], dict | None]

NODE = "hn-test0001"
STEPS = {"steps": [{"act": "nothing"}]}

acts: dict[str, Act] = {}
undos: dict[str, Callable[[StepRun], str]] = {}
settled: dict[str, Callable[[StepRun, dict], None]] = {}


def _act(run: StepRun) -> dict | None:
    return acts[run.params["act"]](run)


def _undo(run: StepRun) -> str:
    _journal(run, "undo")
    return undos.get(run.params["act"], lambda run: f"{run.params['act']} was unmade")(run)


def _settle(run: StepRun, result: dict) -> None:
    settled.get(run.params["act"], lambda run, result: None)(run, result)


part = step_task("tests.part")(_act)  # is undone when a later step fails
part.undoes(_undo)
part.settles(_settle)
whole = step_task("tests.whole", whole=True)(_act)  # stays when a later step fails
whole.undoes(_undo)
plain = step_task("tests.plain")(_act)  # cannot be undone


def _moves(volume: Volume, one: dict[str, Any]) -> list[list[str]]:
    """`moves`: a state of the main subject; `moves_beside`: uid, moving and settled state of another one."""
    own = [["volume", volume.uid, one["moves"]]] if "moves" in one else []
    return [*own, *([["volume", *one["moves_beside"][:2]]] if "moves_beside" in one else [])]


def _plan(volume: Volume, params: dict[str, Any]) -> Plan:
    return Plan(
        tuple(
            PlannedStep(
                task=f"tests.{one.get('task', 'plain')}",
                node=one.get("node", NODE),
                lane=one.get("lane", "ops"),
                params=one,
                moves=_moves(volume, one),
                settles=[["volume", one["moves_beside"][0], one["moves_beside"][2]]] if "moves_beside" in one else [],
                retries=one.get("retries", 2),
                idle_timeout_s=one.get("idle_timeout_s"),
                deadline_s=one.get("deadline_s", 600),
            )
            for one in params.get("steps", STEPS["steps"])
        ),
        also=tuple(Volume.objects.filter(uid__in=params.get("also", []))),
    )


BUILD = Verb("volume", "build", frozenset({"scheduling"}), "available", _plan, cancelled_to="deleted")
GROW = Verb("volume", "grow", frozenset({"available"}), "available", _plan, cancelled_to="available")
REMOVE = Verb(
    "volume",
    "remove",
    frozenset({"available", "error"}),
    "deleted",
    _plan,
    supersedes=lambda params, open_verb: open_verb != "volume.remove",
)


@contextmanager
def registered() -> Iterator[None]:
    """The verbs above are verbs of volumes in this block."""
    verbs = register.nouns["volume"].verbs
    before = dict(verbs)
    verbs.update({verb.name: verb for verb in (BUILD, GROW, REMOVE)})
    try:
        yield
    finally:
        verbs.clear()
        verbs.update(before)


def volume(state: str = "scheduling") -> Volume:
    """A row to do verbs on."""
    account = Account.objects.first() or Account.objects.create(name="ours")
    return Volume.objects.create(account=account, size_bytes=2**20, format="raw", state=state)


def begin(subject: Volume, *steps: dict[str, Any], verb: Verb = BUILD, **params: Any) -> Operation:
    """Begin `verb` with these steps: `{"act": …, "task": "part"|"whole"|"plain", "lane": …}`."""
    asked = {**params, "steps": list(steps)} if steps else params
    return engine.begin(verb, subject, requested_by="the tests", params=asked)


def steps_of(operation: Operation) -> list[Step]:
    return list(Step.objects.filter(operation=operation).order_by("position"))


# --- what steps do, also in worker processes -----------------------------------------------------------------------


def act(name: str) -> Callable[[Act], Act]:
    """Decorator: make a function what steps with `"act": name` do."""

    def keep(work: Act) -> Act:
        acts[name] = work
        return work

    return keep


def _journal(run: StepRun, word: str) -> None:
    if "journal" in run.params:
        with Path(run.params["journal"]).open("a") as file:
            file.write(f"{word} {run.step.attempt}\n")


@act("nothing")
def nothing(run: StepRun) -> None:
    _journal(run, "did")


@act("wait")
def wait(run: StepRun) -> None:
    """Wait for the file `params["until"]` at safe points."""
    _journal(run, "began")
    while not Path(run.params["until"]).exists():
        run.pause(0.02)
    _journal(run, "did")


@act("say")
def say(run: StepRun) -> None:
    """Log `params["words"]`, and print something past the loggers."""
    warnings.warn("a library is unhappy", stacklevel=1)
    threading.Thread(target=lambda: 1 // 0).start()
    structlog.get_logger("parts").info(run.params["words"])


@act("refuse")
def refuse(run: StepRun) -> None:
    raise Permanent("the disk is made of cheese", advice="Buy another one.")


@act("refuse_until")
def refuse_until(run: StepRun) -> None:
    """As `refuse`, until there is the file `params["until"]`."""
    if not Path(run.params["until"]).exists():
        refuse(run)


@act("stumble")
def stumble(run: StepRun) -> None:
    raise ValueError("nobody thought of this")


@act("make")
def make(run: StepRun) -> None:
    """Have the file `params["made"]`, and wait for the file `params["until"]` where one is named."""
    _journal(run, "began")
    Path(run.params["made"]).touch()
    while "until" in run.params and not Path(run.params["until"]).exists():
        run.pause(0.02)
    _journal(run, "did")


def _unmake(run: StepRun) -> str:
    """Remove the file `params["made"]`, and wait for the file `params["undone_when"]` where one is named."""
    Path(run.params["made"]).unlink(missing_ok=True)
    while "undone_when" in run.params and not Path(run.params["undone_when"]).exists():
        run.pause(0.02)
    return f"{Path(run.params['made']).name} was removed"


undos["make"] = _unmake


@act("copy")
def copy(run: StepRun) -> None:
    """Fetch `params["url"]`, a gzip stream, into the image store at `params["store"]`."""
    source = SourceSpec(run.params["url"], "gz", sha256="", stored_size_bytes=None, raw_size_bytes=None)
    ImageStore(Path(run.params["store"])).fetch(source, run, tag=run.tag)
