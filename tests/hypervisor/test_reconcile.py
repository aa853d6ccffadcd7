"""What we believe against what a node sees: nine combinations, a sentence each, and what is never concluded."""

from __future__ import annotations

import itertools

import pytest

from hypervisor.contract import Observation, Observed
from hypervisor.reconcile import Belief, Finding, Kind, compare

UID = "i-a"
NOT_RUNNING = [Observed.PAUSED, Observed.HALTED, Observed.CRASHED]
RUNS, IS_OFF = Belief(UID, runs=True), Belief(UID, runs=False)


def found(belief: Belief | None, *seen: Observed) -> Finding | None:
    """The one finding about this belief and this sight, None if there is nothing to tell."""
    beliefs = [belief] if belief else []
    findings = compare(beliefs, [Observation(UID, state) for state in seen])
    assert len(findings) <= 1
    return findings[0] if findings else None


def kind(belief: Belief | None, *seen: Observed) -> Kind | None:
    finding = found(belief, *seen)
    return finding and finding.kind


# --- the nine ------------------------------------------------------------------------------------------------------


def test_a_guest_believed_running_and_seen_running_agrees():
    assert kind(RUNS, Observed.RUNNING) is Kind.AGREES


@pytest.mark.parametrize("state", NOT_RUNNING)
def test_a_guest_believed_running_and_seen_not_running_differs(state):
    assert kind(RUNS, state) is Kind.DIFFERS


def test_a_guest_believed_running_and_not_seen_is_missing():
    assert kind(RUNS) is Kind.MISSING
    assert found(RUNS).seen.state is Observed.ABSENT


def test_a_guest_believed_halted_and_seen_running_differs():
    assert kind(IS_OFF, Observed.RUNNING) is Kind.DIFFERS


@pytest.mark.parametrize("state", [Observed.HALTED, Observed.CRASHED])
def test_a_guest_believed_halted_and_seen_off_agrees(state):
    assert kind(IS_OFF, state) is Kind.AGREES


def test_a_guest_believed_halted_and_seen_paused_differs_for_it_is_not_off():
    assert kind(IS_OFF, Observed.PAUSED) is Kind.DIFFERS


def test_a_guest_believed_halted_and_not_seen_agrees():
    assert kind(IS_OFF) is Kind.AGREES


def test_a_guest_not_believed_and_seen_running_is_a_stray():
    assert kind(None, Observed.RUNNING) is Kind.STRAY


@pytest.mark.parametrize("state", NOT_RUNNING)
def test_a_guest_not_believed_and_seen_not_running_is_a_stray_too(state):
    assert kind(None, state) is Kind.STRAY


def test_a_guest_not_believed_and_not_seen_is_nothing():
    assert kind(None) is None


# --- what is never concluded ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("belief", [RUNS, IS_OFF], ids=["believed running", "believed halted"])
def test_a_guest_that_cannot_be_asked_is_never_gone(belief):
    assert kind(belief, Observed.UNKNOWN) is Kind.AGREES


def test_a_guest_that_the_node_itself_calls_absent_is_as_good_as_not_seen():
    assert kind(RUNS, Observed.ABSENT) is Kind.MISSING
    assert kind(IS_OFF, Observed.ABSENT) is Kind.AGREES


def test_the_finding_brings_along_what_was_seen():
    look = Observation(UID, Observed.CRASHED, "its process died")
    assert compare([RUNS], [look]) == [Finding(UID, Kind.DIFFERS, look)]


def test_each_guest_is_told_once_in_the_order_of_the_uids_whatever_the_order_of_the_question():
    beliefs = [Belief("i-c", runs=True), Belief("i-a", runs=False)]
    looks = [Observation("i-b", Observed.RUNNING), Observation("i-c", Observed.RUNNING)]
    wanted = [("i-a", Kind.AGREES), ("i-b", Kind.STRAY), ("i-c", Kind.AGREES)]
    for turned in itertools.product(itertools.permutations(beliefs), itertools.permutations(looks)):
        assert [(finding.uid, finding.kind) for finding in compare(*turned)] == wanted
