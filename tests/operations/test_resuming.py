"""A resumed operation goes on where the other one stopped: what is whole is not made again, what moved moves on."""

from __future__ import annotations

import pytest

from core.errors import Conflict
from operations import engine, register
from operations.models import Event, Step
from operations.register import Verb
from tests.operations import parts
from tests.operations.parts import GROW, act, begin, steps_of, volume
from volumes.models import Volume

RETRY = Verb("volume", "retry", frozenset({"error"}), to="", plan=None, resumes=True)


@pytest.fixture(autouse=True)
def retry_is_a_verb(verbs):
    register.nouns["volume"].verbs["retry"] = RETRY


@pytest.fixture
def ran():
    """What was worked on, in order; "fails" fails while it is in `ran.broken`."""

    class Ran(list):
        broken = True

    ran = Ran()
    for name in ("first", "second", "third"):
        act(name)(lambda run: ran.append(run.params["act"]) or {"made": run.params["act"]})

    @act("fails")
    def fails(run):
        ran.append("fails")
        if ran.broken:
            parts.refuse(run)

    return ran


def retry(subject):
    return engine.begin(RETRY, subject, requested_by="the tests")


def states(operation):
    return [step.state for step in steps_of(operation)]


def failed(bells, *steps, **params):
    """A volume in error, and the operation that left it so."""
    subject = volume()
    operation = begin(subject, *steps, **params)
    bells.answer()
    subject.refresh_from_db()
    operation.refresh_from_db()
    assert (operation.state, subject.state) == ("failed", "error")
    return subject, operation


def test_it_reuses_what_is_whole_and_begins_at_the_step_that_failed(bells, ran):
    subject, first = failed(
        bells,
        {"act": "first", "task": "whole", "moves": "pending"},
        {"act": "second", "task": "whole", "moves": "creating"},
        {"act": "fails", "retries": 1},
        {"act": "third"},
    )
    ran.broken = False
    again = retry(subject)
    assert (again.verb, again.resumes, again.params) == (first.verb, first.uid, first.params)
    assert (subject.state, subject.error["operation"]) == ("creating", first.uid), "where the second step had left it"
    [one, two, three, _] = steps_of(again)
    assert [(step.state, step.done_in) for step in (one, two)] == [("done", first.uid)] * 2
    assert (one.result, two.result) == ({"made": "first"}, {"made": "second"})
    assert (three.state, three.retries_left, three.attempt) == ("queued", 1, 1)
    bells.answer()
    again.refresh_from_db()
    subject.refresh_from_db()
    assert (again.state, subject.state, subject.error) == ("done", "available", None)
    assert ran == ["first", "second", "fails", "fails", "third"]
    requested = Event.objects.get(operation_uid=again.uid, name="volume.build.requested")
    assert requested.message == f"the tests asked for retry of {subject.uid}: build goes on where {first.uid} stopped"


@pytest.mark.parametrize("task", ["part", "plain"])
def test_what_was_undone_or_is_not_whole_is_done_again(bells, ran, task):
    subject, _ = failed(
        bells,
        {"act": "first", "task": "whole"},
        {"act": "second", "task": task},
        {"act": "third", "task": "whole"},
        {"act": "fails"},
    )
    ran.broken = False
    again = retry(subject)
    bells.answer()
    assert ran == ["first", "second", "third", "fails", "second", "third", "fails"]
    assert [step.done_in != "" for step in steps_of(again)] == [True, False, False, False]


def test_a_retry_that_failed_is_resumed_by_the_next_and_names_who_did_the_work(bells, ran):
    subject, first = failed(bells, {"act": "first", "task": "whole"}, {"act": "fails"})
    second = retry(subject)
    bells.answer()
    subject.refresh_from_db()
    assert subject.error["operation"] == second.uid
    ran.broken = False
    third = retry(subject)
    bells.answer()
    third.refresh_from_db()
    assert (third.state, third.resumes, steps_of(third)[0].done_in) == ("done", second.uid, first.uid)
    assert ran.count("first") == 1


def test_cancel_of_a_resumed_operation_undoes_what_it_reused(bells, quick, ran):
    subject, _ = failed(bells, {"act": "first", "task": "whole"}, {"act": "fails"})
    ran.broken = False
    act("fails")(lambda run: engine.cancel(run.operation, reason="enough") and run.pause(30))
    again = retry(subject)
    bells.answer()
    again.refresh_from_db()
    subject.refresh_from_db()
    assert (again.state, again.undone, subject.state) == ("cancelled", ["first was unmade"], "deleted")
    assert states(again) == ["undone", "cancelled"]


def test_without_the_steps_of_the_first_one_all_is_done_again(bells, ran):
    subject, first = failed(bells, {"act": "first", "task": "whole"}, {"act": "fails"})
    Step.objects.filter(operation=first).delete()
    ran.broken = False
    again = retry(subject)
    bells.answer()
    again.refresh_from_db()
    assert (again.state, ran) == ("done", ["first", "fails", "first", "fails"])


def test_subjects_beside_the_main_one_come_back_through_their_states(bells, ran):
    beside = volume()
    moving = {"act": "fails", "moves_beside": [beside.uid, "creating", "available"]}
    subject, _ = failed(bells, {"act": "first", "task": "whole", "moves": "pending"}, moving, also=[beside.uid])
    beside.refresh_from_db()
    assert (beside.state, beside.error["message"]) == ("error", "the disk is made of cheese")
    ran.broken = False
    retry(subject)
    beside.refresh_from_db()
    assert beside.state == "creating"
    bells.answer()
    beside.refresh_from_db()
    assert (beside.state, beside.error) == ("available", None)


def test_retry_of_what_is_healthy_or_busy_or_in_error_for_no_known_reason_is_refused(bells, ran):
    healthy = volume("available")
    with pytest.raises(Conflict) as refused:
        retry(healthy)
    assert refused.value.code == "wrong_state"
    assert f"retry is not possible while {healthy.uid} is available; allowed now: grow" in refused.value.detail
    begin(healthy, verb=GROW)
    with pytest.raises(Conflict) as refused:
        retry(healthy)
    assert refused.value.code == "busy"
    for error in (None, {"message": "the disk was seen to burn"}, {"operation": "op-neverwas"}):
        burnt = volume("error")
        Volume.objects.filter(pk=burnt.pk).update(error=error)
        with pytest.raises(Conflict) as refused:
            retry(burnt)
        assert refused.value.code == "wrong_state"
        assert f"no operation is known that left {burnt.uid} in error" in refused.value.detail
    burnt.refresh_from_db()
    assert "retry" in engine.allowed_verbs(burnt, None)
    assert "retry" not in engine.allowed_verbs(volume("error"), None)


def test_a_retry_that_is_cancelled_before_it_began_leaves_nothing_in_motion(bells, ran):
    other = volume()
    beside = {"moves_beside": [other.uid, "creating", "available"]}
    subject, first = failed(bells, {"act": "fails", **beside}, also=[other.uid])
    again = retry(subject)
    other.refresh_from_db()
    assert other.state == "creating"
    engine.cancel(again, reason="by the tests")
    for row in (again, subject, other):
        row.refresh_from_db()
    assert (again.state, subject.state, other.state) == ("cancelled", "error", "error")
    assert (subject.error["operation"], other.error["operation"]) == (first.uid, first.uid)


def test_what_moved_beside_something_that_is_well_says_why_it_is_in_error(bells):
    subject, other = volume("available"), volume()
    begin_beside = {"act": "nothing", "moves_beside": [other.uid, "creating", "available"]}
    operation = begin(subject, begin_beside, verb=GROW, also=[other.uid])
    engine.cancel(operation, reason="by the tests")
    for row in (subject, other):
        row.refresh_from_db()
    assert (subject.state, subject.error, other.state) == ("available", None, "error")
    assert "grow was cancelled: by the tests" in other.error["message"]
