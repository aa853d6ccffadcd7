"""Belief against sight, as a table."""

from __future__ import annotations

import pytest

from hypervisor.contract import Observation, Observed
from hypervisor.reconcile import Belief, Kind, compare

UID = "i-a"


@pytest.mark.parametrize(
    ("runs", "seen", "kind"),
    [
        (True, Observed.RUNNING, Kind.AGREES),
        (True, Observed.PAUSED, Kind.DIFFERS),
        (True, Observed.HALTED, Kind.DIFFERS),
        (True, Observed.CRASHED, Kind.DIFFERS),
        (True, Observed.ABSENT, Kind.MISSING),
        (True, Observed.UNKNOWN, Kind.AGREES),
        (True, None, Kind.MISSING),
        (False, Observed.RUNNING, Kind.DIFFERS),
        (False, Observed.PAUSED, Kind.DIFFERS),
        (False, Observed.HALTED, Kind.AGREES),
        (False, Observed.CRASHED, Kind.AGREES),
        (False, Observed.ABSENT, Kind.AGREES),
        (False, Observed.UNKNOWN, Kind.AGREES),
        (False, None, Kind.AGREES),
        (None, Observed.RUNNING, Kind.STRAY),
        (None, Observed.PAUSED, Kind.STRAY),
        (None, Observed.HALTED, Kind.STRAY),
    ],
)
def test_every_pair_of_belief_and_sight_has_one_finding(runs, seen, kind):
    beliefs = [] if runs is None else [Belief(UID, runs)]
    looks = [] if seen is None else [Observation(UID, seen)]
    [finding] = compare(beliefs, looks)
    assert (finding.uid, finding.kind) == (UID, kind)
    assert finding.seen.state is (seen or Observed.ABSENT)


def test_findings_come_in_the_order_of_the_uids_and_each_once():
    beliefs = [Belief("i-c", True), Belief("i-a", False)]
    looks = [Observation("i-b", Observed.RUNNING), Observation("i-c", Observed.RUNNING)]
    assert [(finding.uid, finding.kind) for finding in compare(beliefs, looks)] == [
        ("i-a", Kind.AGREES),
        ("i-b", Kind.STRAY),
        ("i-c", Kind.AGREES),
    ]


def test_nothing_believed_and_nothing_seen_is_nothing_found():
    assert compare([], []) == []
