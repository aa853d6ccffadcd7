"""What ended is counted once, in buckets, without a statement on the engine's own path."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.db import transaction
from django.db.models.functions import Now

from operations import sweep, tally
from operations.models import Operation, Step, Tally
from tests.operations import parts
from tests.operations.parts import begin, steps_of, volume

LONG_S = 1000.0


@pytest.fixture(autouse=True)
def tallies(bells):
    yield
    Tally.objects.all().delete()


def told(metric):
    return {(row.first, row.second): row.count for row in Tally.objects.filter(metric=metric)}


def test_each_operation_counts_once_by_verb_and_outcome(bells):
    begin(volume(), {"act": "nothing"})
    begin(volume(), {"act": "nothing"})
    begin(volume(), {"act": "refuse"})
    bells.answer()
    begin(volume())  # goes on
    tally.count_ended(LONG_S)
    tally.count_ended(LONG_S)
    assert told(tally.OPERATIONS) == {("volume.build", "done"): 2, ("volume.build", "failed"): 1}
    begin(volume(), {"act": "nothing"})
    bells.answer()
    tally.count_ended(LONG_S)
    assert told(tally.OPERATIONS)["volume.build", "done"] == 4
    assert not Operation.objects.filter(tallied=False).exists()


def test_what_is_counted_goes_with_the_mark_that_it_was(bells):
    begin(volume(), {"act": "nothing"})
    bells.answer()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        tally.count_ended(LONG_S)
        raise ZeroDivisionError
    assert told(tally.OPERATIONS) == {}
    tally.count_ended(LONG_S)
    assert told(tally.OPERATIONS) == {("volume.build", "done"): 1}


def test_attempts_lie_in_the_bucket_of_how_long_they_took(bells):
    operation = begin(volume(), *[{"act": "nothing"}] * 3)
    bells.answer()
    for step, took_s in zip(steps_of(operation), (0.3, 0.4, 5000.0), strict=True):
        ended_at = datetime.fromisoformat(step.attempts[0]["ended_at"])
        step.attempts[0]["started_at"] = (ended_at - timedelta(seconds=took_s)).isoformat()
        step.save()
    tally.count_ended(LONG_S)
    rows = Tally.objects.filter(metric=tally.STEP_SECONDS, first="tests.plain", second="done").order_by("le")
    assert [(row.le, row.count, round(row.total, 3)) for row in rows] == [(0.5, 2, 0.7), (float("inf"), 1, 5000.0)]


def test_a_step_that_failed_and_was_undone_counts_as_both(bells):
    begin(volume(), {"act": "refuse", "task": "part"})
    bells.answer()
    tally.count_ended(LONG_S)
    assert told(tally.STEP_SECONDS) == {("tests.part", "failed"): 1, ("tests.part", "undone"): 1}


def test_steps_that_found_their_work_done_are_told_from_those_that_did_it(bells):
    found = iter([True, True, False])
    parts.acts["fetch"] = lambda run: {"was_present": next(found)}
    for _ in range(3):
        begin(volume(), {"act": "fetch"})
    bells.answer()
    tally.count_ended(LONG_S)
    assert told(tally.STEPS_REUSED) == {("tests.plain", "true"): 2, ("tests.plain", "false"): 1}


def test_many_operations_are_counted_in_a_few_statements(bells, statements, monkeypatch):
    for _ in range(5):
        begin(volume(), {"act": "nothing"})
    bells.answer()
    monkeypatch.setattr(tally, "MOST_AT_ONCE", 2)
    with statements() as ran:
        tally.count_ended(LONG_S)
    assert (told(tally.OPERATIONS), len(ran)) == ({("volume.build", "done"): 5}, 3)


def test_the_path_of_a_step_counts_nothing(bells, statements):
    begin(volume(), {"act": "nothing"})
    with statements() as ran:
        bells.answer()
    assert not [sql for sql in ran if "tally" in sql]


def test_an_expired_lease_is_counted(bells):
    begin(volume())
    a_while_ago = Now() - timedelta(seconds=1)
    Step.objects.update(worker="me:1/abc", state="running", claimed_at=a_while_ago, lease_until=a_while_ago)
    sweep.take_from_lost_workers()
    sweep.take_from_lost_workers()
    assert told(tally.LEASE_EXPIRIES) == {("tests.plain", ""): 1}
