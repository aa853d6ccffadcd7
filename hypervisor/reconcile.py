"""Compare what we believe with what a node sees, purely.

                        seen running      seen paused       seen halted/crashed   not seen
    believed running    agrees            differs           differs               missing
    believed halted     differs           differs           agrees                agrees
    not believed        stray             stray             stray                 -

"Not seen" counts only in an answer that lists everything; a node that cannot be asked gives no answer at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from hypervisor.contract import Observation, Observed


class Kind(StrEnum):
    AGREES = "agrees"
    DIFFERS = "differs"
    MISSING = "missing"
    STRAY = "stray"


@dataclass(frozen=True, slots=True)
class Belief:
    """What a row says of a guest on this node: does it run?"""

    uid: str
    runs: bool


@dataclass(frozen=True, slots=True)
class Finding:
    uid: str
    kind: Kind
    seen: Observation


ENDED = frozenset({Observed.HALTED, Observed.CRASHED, Observed.ABSENT})


def compare(beliefs: Iterable[Belief], seen: Iterable[Observation]) -> list[Finding]:
    """One finding per guest that is believed or seen, in the order of the uids."""
    believed = {belief.uid: belief for belief in beliefs}
    looks = {look.uid: look for look in seen}
    return [_finding(uid, believed.get(uid), looks.get(uid)) for uid in sorted(believed.keys() | looks.keys())]


def _finding(uid: str, belief: Belief | None, look: Observation | None) -> Finding:
    if belief is None:
        return Finding(uid, Kind.STRAY, look)
    if look is None:
        kind = Kind.MISSING if belief.runs else Kind.AGREES
        return Finding(uid, kind, Observation(uid, Observed.ABSENT, "the node does not know it"))
    if look.state is Observed.UNKNOWN:
        return Finding(uid, Kind.AGREES, look)
    if belief.runs and look.state is Observed.ABSENT:
        return Finding(uid, Kind.MISSING, look)
    agrees = look.state is Observed.RUNNING if belief.runs else look.state in ENDED
    return Finding(uid, Kind.AGREES if agrees else Kind.DIFFERS, look)
