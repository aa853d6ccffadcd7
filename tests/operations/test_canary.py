"""A canary per lane: sent, heard, late, lost, and never more than one in a queue."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models import F
from django.db.models.functions import Now

from core.errors import Unreachable
from operations import canary, register
from operations.api.serializers import OperationSerializer
from operations.models import LaneCanary, Operation, Step
from tests.operations.parts import NODE, begin, volume

LONG_S = 1000.0
OPS = (NODE, "ops")


@pytest.fixture
def lists(monkeypatch):
    """How many bells lie in Redis, as the test says: none."""
    lists = {}
    monkeypatch.setattr(canary, "queue_lengths", lambda lanes: {lane: lists.get(lane, 0) for lane in lanes})
    return lists


@pytest.fixture
def rung(bells, lists, monkeypatch):
    """The canaries that were rung, as (lane, id, number); two lanes are served, the test's and the control lane."""
    rung = []
    monkeypatch.setattr(canary, "ring", lambda pk, number, task, node, lane: rung.append(((node, lane), pk, number)))
    monkeypatch.setattr(register, "lanes", [lambda: [OPS]])
    monkeypatch.setattr(canary, "is_heard", lambda: True)
    yield rung
    LaneCanary.objects.all().delete()


def row():
    return LaneCanary.objects.get(node=NODE, lane="ops")


def sent_ago(seconds):
    LaneCanary.objects.update(
        sent_at=Now() - timedelta(seconds=seconds), waits_since=Now() - timedelta(seconds=seconds)
    )


def answer_all(rung):
    for _, pk, number in rung:
        canary.answer(pk, number)
    rung.clear()


def test_each_lane_gets_a_canary_and_its_answer_says_how_long_the_way_was(rung):
    canary.send(LONG_S)
    assert {lane for lane, _, _ in rung} == {OPS, canary.CONTROL}
    LaneCanary.objects.update(sent_at=F("sent_at") - timedelta(seconds=2))
    answer_all(rung)
    assert row().waits_since is None
    assert row().heard_at is not None
    assert 2 <= row().round_trip.total_seconds() < 60
    canary.send(LONG_S)
    assert sorted(number for _, _, number in rung) == [2, 2]


def test_while_one_lies_in_the_queue_no_other_is_sent(rung, lists):
    canary.send(LONG_S)
    rung.clear()
    lists[OPS] = lists[canary.CONTROL] = 1
    canary.send(LONG_S)
    assert rung == []
    assert row().number == 1


def test_a_canary_that_was_lost_is_followed_by_another_and_the_wait_counts_from_the_first(rung, lists):
    canary.send(LONG_S)
    sent_ago(500)
    first = row().waits_since
    rung.clear()
    lists[canary.CONTROL] = 1
    canary.send(LONG_S)
    assert [(lane, number) for lane, _, number in rung] == [(OPS, 2)]
    assert row().waits_since == first
    assert row().sent_at > first


def test_bells_of_steps_are_not_taken_for_the_canary(rung, lists):
    begin(volume())
    canary.send(LONG_S)
    rung.clear()
    lists[OPS] = 2
    lists[canary.CONTROL] = 1
    canary.send(LONG_S)
    assert rung == [], "the step's bell and the canary"
    lists[OPS] = 1
    canary.send(LONG_S)
    assert [lane for lane, _, _ in rung] == [OPS], "the step's bell alone"


def test_while_redis_does_not_answer_none_is_sent(rung, monkeypatch):
    monkeypatch.setattr(canary, "is_heard", lambda: False)
    canary.send(LONG_S)
    assert rung == []


def test_while_redis_cannot_be_asked_nothing_is_taken_for_lost(rung, monkeypatch):
    canary.send(LONG_S)
    rung.clear()

    def away(lanes):
        raise Unreachable("Redis cannot be asked")

    monkeypatch.setattr(canary, "queue_lengths", away)
    canary.send(LONG_S)
    assert rung == []


def test_an_answer_to_a_canary_that_was_given_up_says_nothing(rung):
    canary.send(LONG_S)
    [old] = [(pk, number) for lane, pk, number in rung if lane == OPS]
    canary.send(LONG_S)
    canary.answer(*old)
    assert row().waits_since is not None


def test_a_node_that_is_away_has_no_canary(rung, monkeypatch):
    canary.send(LONG_S)
    monkeypatch.setattr(register, "lanes", [])
    canary.send(LONG_S)
    assert [(one.node, one.lane) for one in LaneCanary.objects.all()] == [canary.CONTROL]


def test_a_lane_that_does_not_answer_is_named_unless_it_is_full(rung):
    canary.send(LONG_S)
    assert canary.troubles([OPS]) == {}, "it has time to answer"
    sent_ago(canary.EVERY_S + 1)
    said = canary.troubles([OPS, canary.CONTROL])
    assert said[OPS].startswith(f"the lane ops of node {NODE}, which has not answered since 20")
    assert said[canary.CONTROL].startswith("the lane control, which has not answered since 20")
    for _ in range(4):
        begin(volume())
    Step.objects.update(worker="me:1/abc", state="running")
    assert canary.troubles([OPS]) == {}, "its four slots are taken"


def test_the_cost_does_not_grow_with_the_lanes(rung, lists, statements, monkeypatch):
    monkeypatch.setattr(register, "lanes", [lambda: [(f"hn-{n}", "ops") for n in range(200)]])
    canary.send(LONG_S)
    answer_all(rung)
    with statements() as ran:
        canary.send(LONG_S)
    assert len(rung) == 201
    assert len(ran) <= 4


def test_an_operation_says_that_it_waits_for_a_lane_that_does_not_answer(rung, monkeypatch):
    monkeypatch.setattr(register, "node_troubles", [])
    operation = begin(volume())
    canary.send(LONG_S)
    assert OperationSerializer(operation).data["waiting_for"].startswith("a free worker of the lane ops")
    sent_ago(canary.EVERY_S + 1)
    said = OperationSerializer(Operation.objects.get()).data["waiting_for"]
    assert said.startswith(f"the lane ops of node {NODE}, which has not answered since")
