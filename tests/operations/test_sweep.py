"""The sweep rings again, takes from the lost, prunes, and lets no single fault stop it."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.db.models import F
from django.db.models.functions import Now

from core.errors import Unreachable
from operations import pruning, recovery, ringing, sweep, timing
from operations.answering import Answering
from operations.events import note_of
from operations.models import Event, Operation, Step
from operations.recovery import lose
from operations.sweep import Chore
from tests.operations.parts import NODE, begin, steps_of, volume


@pytest.fixture
def lists(monkeypatch):
    """How many bells lie in Redis, as the test says: none."""
    lists = {}
    monkeypatch.setattr(ringing, "queue_lengths", lambda lanes: {lane: lists.get(lane, 0) for lane in lanes})
    return lists


def wait_for(happened):
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def rung_ago(seconds):
    Step.objects.update(rung_at=Now() - timedelta(seconds=seconds))


def test_a_bell_that_nobody_answers_is_rung_again_after_longer_and_longer_pauses(bells, lists):
    begin(volume())
    [first] = bells
    for pause_s in (10, 20, 40, 80, 160, 300, 300, 300):
        bells.clear()
        rung_ago(pause_s - 1)
        sweep.ring_again()
        assert bells == [], f"too early before {pause_s} s"
        rung_ago(pause_s + 1)
        sweep.ring_again()
        assert bells == [first]
        sweep.ring_again()
        assert bells == [first], "once"


def test_a_lane_that_is_away_for_weeks_is_rung_still(bells, lists):
    begin(volume())
    Step.objects.update(rings=10**5)
    bells.clear()
    rung_ago(301)
    sweep.ring_again()
    assert len(bells) == 1


def test_nothing_is_rung_while_as_many_bells_lie_there_as_steps_wait(bells, lists):
    for _ in range(3):
        begin(volume())
    bells.clear()
    rung_ago(1000)
    lists[NODE, "ops"] = 3
    sweep.ring_again()
    assert bells == []
    assert not Step.objects.filter(rings__gt=0).exists()
    lists[NODE, "ops"] = 2
    sweep.ring_again()
    assert len(bells) == 3


def test_each_lane_is_judged_by_its_own_list(bells, lists):
    begin(volume(), {"act": "nothing", "lane": "bulk"})
    waits = begin(volume(), {"act": "nothing", "lane": "ops"})
    bells.clear()
    rung_ago(1000)
    lists[NODE, "bulk"] = 1
    sweep.ring_again()
    assert bells == [(steps_of(waits)[0].pk, 1)]


def test_a_step_that_is_worked_on_or_ended_is_not_rung(bells, lists):
    begin(volume())
    begin(volume())
    Step.objects.filter(pk=bells[0][0]).update(state="running", worker="me:1/abc")
    Step.objects.filter(pk=bells[1][0]).update(state="done", ended_at=Now())
    bells.clear()
    rung_ago(1000)
    sweep.ring_again()
    assert bells == []


def test_a_pause_that_is_over_is_rung_at_once_and_one_that_is_not_is_not(bells, lists):
    begin(volume())
    [bell] = bells
    bells.clear()
    Step.objects.update(not_before=Now() + timedelta(seconds=60), rung_at=Now() - timedelta(seconds=1000))
    sweep.ring_again()
    assert bells == []
    Step.objects.update(not_before=Now() - timedelta(seconds=1))
    sweep.ring_again()
    assert bells == [bell]
    assert Step.objects.get().rings == 0, "the patience begins anew"


def test_an_undo_whose_bell_was_lost_is_rung_again(bells, lists):
    from operations import protocol

    operation = begin(volume(), {"act": "nothing", "task": "part"}, {"act": "refuse", "lane": "bulk"})
    protocol.run_step(*bells.pop(0))
    protocol.run_step(*bells.pop(0))
    [lost] = bells
    bells.clear()
    assert steps_of(operation)[0].state == "undoing"
    rung_ago(11)
    sweep.ring_again()
    assert bells == [lost]
    bells.answer()
    operation.refresh_from_db()
    assert operation.state == "failed"


def test_thousands_of_steps_cost_a_few_statements(bells, lists, statements):
    operation = begin(volume())
    Step.objects.bulk_create(
        Step(
            operation=operation, position=n, task="tests.plain", node=f"hn-{n % 100}", lane="ops", state="queued",
            queued_at=Now(), rung_at=Now(),
        )
        for n in range(2, 5002)
    )  # fmt: skip
    Step.objects.update(rung_at=Now())  # a busy machine may need long to write so many
    with statements() as idle:
        sweep.ring_again()
    assert len(idle) == 1, "nothing is due"
    rung_ago(1000)
    begun = time.monotonic()
    with statements() as busy:
        sweep.ring_again()
    assert len(busy) == 3
    assert len(bells) == 1 + 5001
    assert time.monotonic() - begun < 10


def test_without_redis_no_ring_is_counted(bells, monkeypatch):
    def away(lanes):
        raise Unreachable("Redis cannot be asked")

    monkeypatch.setattr(ringing, "queue_lengths", away)
    begin(volume())
    rung_ago(1000)
    sweep.ring_again()
    assert Step.objects.get().rings == 0


# --- lost workers --------------------------------------------------------------------------------------------------


def claimed(lease_s):
    operation = begin(volume())
    Step.objects.filter(operation=operation).update(
        state="running", worker="gone:1/abc", claimed_at=Now(), lease_until=Now() + timedelta(seconds=lease_s)
    )
    return operation


def test_a_step_is_taken_when_its_lease_is_over_and_not_before(bells):
    lost, kept = claimed(-1), claimed(10)
    bells.clear()
    sweep.take_from_lost_workers()
    assert [step.state for step in steps_of(lost)] == ["queued"]
    assert [step.state for step in steps_of(kept)] == ["running"]
    assert bells == [(steps_of(lost)[0].pk, 2)]
    assert Event.objects.filter(operation_uid=lost.uid, name="volume.build.attempt_lost").exists()


def test_a_step_that_settles_while_it_is_judged_is_not_lost(bells):
    operation = claimed(-1)
    before = Step.objects.get(operation=operation)
    Step.objects.filter(operation=operation).update(state="done", ended_at=Now())
    lose(before, "too late")
    assert [step.state for step in steps_of(operation)] == ["done"]


def test_a_step_that_takes_its_workers_along_is_given_up(bells):
    operation = begin(volume(), {"act": "nothing", "task": "part"})
    for attempt in range(1, timing.MOST_LOSSES + 1):
        Step.objects.filter(operation=operation).update(state="running", worker="gone:1/abc", claimed_at=Now())
        step = Step.objects.get(operation=operation)
        assert step.attempt == attempt
        lose(step, "out of memory")
    bells[:] = bells[-1:]
    bells.answer()
    operation.refresh_from_db()
    assert operation.state == "failed"
    assert "lost its worker 5 times; last: out of memory" in operation.error["message"]
    assert operation.undone == ["nothing was unmade"]


def test_a_lost_step_of_a_cancelled_operation_is_not_begun_again(bells):
    operation = claimed(-1)
    Operation.objects.filter(pk=operation.pk).update(cancel_reason="enough")
    sweep.take_from_lost_workers()
    operation.refresh_from_db()
    assert operation.state == "cancelled"


def test_one_step_that_cannot_be_taken_does_not_keep_the_sweep_from_the_others(bells, monkeypatch):
    broken, fine = claimed(-2), claimed(-1)

    def fragile(step, why):
        if step.operation_id == broken.pk:
            raise RuntimeError("this one is odd")
        lose(step, why)

    monkeypatch.setattr(sweep, "lose", fragile)
    sweep.take_from_lost_workers()
    assert [step.state for step in steps_of(fine)] == ["queued"]


def test_one_step_that_cannot_be_taken_does_not_keep_a_lane_closed(bells, lists, monkeypatch):
    broken, fine = claimed(-2), claimed(60)

    def fragile(step, why):
        if step.operation_id == broken.pk:
            raise RuntimeError("this one is odd")
        lose(step, why)

    monkeypatch.setattr(recovery, "lose", fragile)
    assert recovery.take_over([NODE], "ops") == 2
    assert [step.state for step in steps_of(fine)] == ["queued"]


def test_leases_are_judged_only_after_a_full_lease_of_good_rounds(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    answering = Answering()
    for _ in range(10):
        assert answering.for_s() == now[0] - 1000
        now[0] += 1
    answering.interrupted()  # a query failed
    assert answering.for_s() == 0
    now[0] += timing.LEASE_S  # a round that hung, or a machine that slept
    assert answering.for_s() == 0
    now[0] += 1
    assert answering.for_s() == 1


def test_lost_workers_are_looked_for_in_good_times_only(bells, monkeypatch):
    asked = []
    monkeypatch.setattr(sweep, "take_from_lost_workers", lambda: asked.append(True))
    monkeypatch.setattr(sweep, "chores", [])
    sweep._round(timing.LEASE_S - 1)
    assert asked == []
    sweep._round(timing.LEASE_S + 1)
    assert asked == [True]


# --- one of two ----------------------------------------------------------------------------------------------------


def test_of_two_sweeps_one_works_and_the_other_takes_over_when_its_session_is_gone(
    bells, quick, lists, in_threads, monkeypatch
):
    rounds = []
    monkeypatch.setattr(sweep, "chores", [Chore("count", 0, lambda good_for_s: rounds.append(threading.get_ident()))])
    stop = threading.Event()
    sweeps = in_threads(lambda: sweep.sweep(stop), lambda: sweep.sweep(stop))
    try:
        wait_for(lambda: len(rounds) > 10)
        assert len(set(rounds)) == 1
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s",
                [sweep.ADVISORY_LOCK],
            )
            assert cursor.fetchone() == (1,)
        before = len(rounds)
        wait_for(lambda: len(rounds) > before + 10)
        assert len(set(rounds[before + 1 :])) == 1, "again one, whichever was faster"
        assert not any(future.done() for future in sweeps)
    finally:
        stop.set()
        for future in sweeps:
            future.result(30)


def test_a_chore_that_fails_stops_neither_the_sweep_nor_the_other_chores(bells, lists, monkeypatch):
    done = []

    def broken(good_for_s):
        raise KeyError("odd")

    monkeypatch.setattr(sweep, "chores", [Chore("broken", 0, broken), Chore("fine", 0, done.append)])
    sweep._round(5)
    assert done == [5]


def test_a_chore_that_meets_an_outage_ends_the_round(bells, lists, monkeypatch):
    def away(good_for_s):
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = 1; SELECT pg_sleep(1)")

    monkeypatch.setattr(sweep, "chores", [Chore("away", 0, away)])
    with pytest.raises(OperationalError):
        sweep._round(5)


# --- pruning -------------------------------------------------------------------------------------------------------


def test_steps_and_events_of_operations_that_ended_long_ago_go_and_the_summary_stays(bells):
    old, recent, long_running = begin(volume()), begin(volume()), begin(volume())
    long_ago = Now() - timedelta(days=timing.KEEP_FINISHED_DAYS + 1)
    Operation.objects.filter(pk=old.pk).update(ended_at=long_ago)
    Operation.objects.filter(pk=recent.pk).update(ended_at=Now())
    Event.objects.filter(operation_uid=old.uid).update(created_at=long_ago)
    pruning.prune(0)
    assert set(Step.objects.values_list("operation", flat=True)) == {recent.pk, long_running.pk}
    assert not Event.objects.filter(operation_uid=old.uid).exists()
    assert Event.objects.filter(operation_uid=recent.uid).exists()
    assert Operation.objects.filter(pk=old.pk).exists()


def test_pruning_takes_a_little_at_once_and_comes_to_an_end(bells, statements, monkeypatch):
    monkeypatch.setattr(pruning, "MOST_AT_ONCE", 10)
    operation = begin(volume())
    for _ in range(24):
        note_of(operation, "noise", "again")
    Event.objects.update(created_at=F("created_at") - timedelta(days=timing.KEEP_FINISHED_DAYS + 1))
    counts = []
    for _ in range(4):
        with statements() as ran:
            pruning.prune(0)
        assert len(ran) <= 4
        counts.append(Event.objects.count())
    assert counts == [15, 5, 0, 0]
