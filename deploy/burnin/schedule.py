"""What a campaign does and when, from its seed alone: the same seed gives the same schedule."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

DEED_EVERY_S = 0.7
FAULT_EVERY_S = 3.6
QUIET_START_S = 3.0
# Guests at the same time, by hypervisor: what two cores can carry.
PLACES = {"kvm": 3, "lxc": 6, "fake": 20}
SHARES = {"kvm": 2, "lxc": 4, "fake": 4}  # of the deeds
OTHERS = ("import", "restore")  # what is asked for now and then, of no instance
OTHERS_SHARE = 0.08
VERBS = ("poweroff", "poweron", "terminate", "retry")
WEIGHTS = (6, 6, 4, 3)
BROKEN_OFF = ("cancel", "terminate", "poweroff", "nothing", "nothing")  # what may befall an instance that is busy

PROCESSES = ("node-ops", "node-bulk", "node-observer", "control", "sweep", "web", "files", "redis", "postgres")
PROCESSES += ("libvirtd", "fleet-ops", "fleet-bulk", "fleet-observer")
HAVE_LEASES = ("node-ops", "node-bulk", "node-observer", "control", "sweep", "fleet-ops", "fleet-bulk")
# Frozen ones count more than killed ones: only a frozen worker comes back after it was given up.
KINDS = (
    *(("kill", process) for process in (*PROCESSES, "virtlogd", "postgres backend", "web worker")),
    *(("freeze", process) for process in PROCESSES),
    ("freeze", "node-ops"),
    ("freeze", "node-bulk"),
    ("flush", "redis"),
    ("flush", "redis"),
    ("double", "bells"),
    ("double", "bells"),
    ("fill", "volume disk"),
    ("cut", "downloads"),
    ("cut", "downloads"),
    ("stall", "downloads"),
)
SHORT_S, LONG_S, BEYOND_A_LEASE_S = (0.3, 3.0), (3.0, 9.0), (17.0, 21.0)


@dataclass(frozen=True)
class Deed:
    """Something asked of the API. What becomes of a place's instance depends on its state: the first wish that fits.

    `draw` (0 to 1) decides the details.
    """

    at_s: float
    place: str  # "lxc-3": the fourth place for a container; or one of OTHERS
    wishes: tuple[str, ...]
    broken_off: str
    draw: float


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong at `at_s` and, unless it is over at once, for `lasts_s`."""

    at_s: float
    kind: str
    target: str
    lasts_s: float
    draw: float

    def __str__(self) -> str:
        lasting = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        return f"{self.kind} {self.target}{lasting}"


@dataclass(frozen=True)
class Schedule:
    """All of it, in order of time."""

    seed: int
    length_s: float
    deeds: tuple[Deed, ...]
    faults: tuple[Fault, ...]


def draw_up(seed: int, length_s: float) -> Schedule:
    """The schedule of a seed. Faults and deeds have their own dice, so that one can change without the other."""
    return Schedule(
        seed=seed,
        length_s=length_s,
        deeds=tuple(_deeds(random.Random(f"deeds {seed}"), length_s)),  # noqa: S311 - a game of dice
        faults=tuple(_faults(random.Random(f"faults {seed}"), length_s)),  # noqa: S311
    )


def _deeds(dice: random.Random, length_s: float) -> Iterator[Deed]:
    at_s = 0.0
    while True:
        at_s += dice.uniform(0.2, 1.8) * DEED_EVERY_S
        if at_s >= length_s:
            return
        hypervisor = dice.choices(list(SHARES), list(SHARES.values()))[0]
        place = f"{hypervisor}-{dice.randrange(PLACES[hypervisor])}"
        if dice.random() < OTHERS_SHARE:
            place = dice.choice(OTHERS)
        yield Deed(at_s, place, _in_random_order(dice), dice.choice(BROKEN_OFF), dice.random())


def _in_random_order(dice: random.Random) -> tuple[str, ...]:
    """All verbs; the heavier one is, the likelier it comes early."""
    return tuple(sorted(VERBS, key=lambda verb: dice.random() ** (1 / WEIGHTS[VERBS.index(verb)]), reverse=True))


def _faults(dice: random.Random, length_s: float) -> Iterator[Fault]:
    at_s, bag = QUIET_START_S, []
    while at_s < length_s:
        bag = bag or dice.sample(KINDS, len(KINDS))  # each kind once before any comes again
        kind, target = bag.pop()
        lasts_s = min(_duration(dice, kind, target), length_s - at_s)
        yield Fault(at_s, kind, target, lasts_s, dice.random())
        at_s += dice.uniform(0.3, 1.7) * FAULT_EVERY_S


def _duration(dice: random.Random, kind: str, target: str) -> float:
    if kind in ("kill", "flush"):
        return 0.0
    if kind == "freeze":
        span = dice.choices((SHORT_S, LONG_S, BEYOND_A_LEASE_S), (5, 3, 2))[0]
        return dice.uniform(*(span if target in HAVE_LEASES else min(span, LONG_S)))
    return dice.uniform(*LONG_S)
