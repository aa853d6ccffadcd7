"""GET /metrics: what Prometheus reads, checked by its own tool, and for operators only."""

from __future__ import annotations

import re
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from prometheus_client.parser import text_string_to_metric_families

from hypervisor import strays
from hypervisor.models import NodePulse, StrayKind
from hypervisor.strays import Sighting
from operations import canary, tally
from operations.models import LaneCanary, Operation, OperationSubject, Step, Tally
from operations.states import Hold
from tests import datacenter

pytestmark = pytest.mark.django_db
PATH = "/metrics"
MONITORING = Path(__file__).resolve().parents[2] / "docs" / "operations" / "monitoring.md"


@pytest.fixture
def read(operator):
    """`read()`: every sample as {(name, labels…): value}, the labels in the order of their names."""

    def read():
        answer = operator.client.get(PATH)
        assert answer.status_code == 200, answer.content
        found = {}
        for family in text_string_to_metric_families(answer.content.decode()):
            for sample in family.samples:
                found[(sample.name, *(sample.labels[label] for label in sorted(sample.labels)))] = sample.value
        return found

    return read


def operation(account, *, verb="instance.launch", state="done", ended=True, **step):
    row = Operation.objects.create(
        account=account, verb=verb, subject_kind="instance", subject_uid="i-x", state=state, requested_by="the tests"
    )
    row.ended_at = Now() if ended else None
    row.save()
    OperationSubject.objects.create(operation=row, kind="instance", uid=row.uid, hold=Hold.CLOSED)
    values = {"task": "volumes.fetch_image", "node": "hn-x", "lane": "bulk", "state": "done" if ended else "queued"}
    Step.objects.create(operation=row, position=1, **values | step)
    return row


def attempt(outcome):
    return {
        "started_at": "2026-01-01T00:00:00+00:00",
        "ended_at": "2026-01-01T00:00:00.200000+00:00",
        "outcome": outcome,
    }


@pytest.fixture
def busy(ours):
    """Some of everything: operations that ended and that wait, a node with figures, canaries, expiries."""
    node = datacenter.node()
    pulse = NodePulse.objects.filter(node=node)
    pulse.update(
        heartbeat_at=Now() - timedelta(seconds=7),
        observed_at=Now(),
        figures={"image_cache_entries": 3, "image_cache_bytes": 2**30},
    )
    for was_present in (True, True, False):
        operation(ours, result={"was_present": was_present}, attempts=[attempt("done")])
    operation(ours, state="failed", attempts=[attempt("failed")])
    operation(ours, state="queued", ended=False, queued_at=Now() - timedelta(seconds=40), node=node.uid)
    operation(ours, state="queued", ended=False, queued_at=Now() - timedelta(seconds=50), node=node.uid, worker="me:1")
    tally.count(tally.LEASE_EXPIRIES, "volumes.fetch_image")
    tally.count(tally.RECONCILE, "differs", node.uid, times=2)
    for _ in range(2):
        strays.found(node, StrayKind.VOLUME, Sighting("vol-x", "kvm"))
    LaneCanary.objects.create(node=node.uid, lane="ops", number=2, round_trip=timedelta(milliseconds=4), heard_at=Now())
    LaneCanary.objects.create(node="", lane="control", number=1, waits_since=Now() - timedelta(seconds=90))
    tally.count_ended(1000)
    return node


def test_prometheus_own_check_finds_nothing_to_say(operator, busy):
    text = operator.client.get(PATH).content
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_a_data_center_in_which_nothing_happened_has_metrics_too(read):
    assert [value for (name, *_), value in read().items() if name == "vdc_build_info"] == [1]


def test_what_ended_is_told_by_verb_and_outcome(read, busy):
    told = read()
    assert told["vdc_operations_total", "done", "instance.launch"] == 3
    assert told["vdc_operations_total", "failed", "instance.launch"] == 1
    assert told["vdc_operations_open", "queued", "instance.launch"] == 2
    assert told["vdc_step_lease_expiries_total", "volumes.fetch_image"] == 1
    assert told["vdc_image_cache_requests_total", "hit"] == 2
    assert told["vdc_image_cache_requests_total", "miss"] == 1
    assert told["vdc_reconcile_differences_total", "differs", busy.uid] == 2
    assert told["vdc_reconcile_differences_total", "stray", busy.uid] == 1
    assert told["vdc_node_strays", "volume", busy.uid] == 1


def test_steps_are_a_histogram_whose_buckets_add_up(read, busy):
    told = read()
    name, labels = "vdc_step_duration_seconds", ("done", "volumes.fetch_image")
    buckets = [told[f"{name}_bucket", le, *labels] for le in ("0.1", "0.25", "0.5", "1800.0", "+Inf")]
    assert buckets == [0, 3, 3, 3, 3]
    assert told[f"{name}_count", *labels] == 3
    assert told[f"{name}_sum", *labels] == pytest.approx(0.6)


def test_lanes_tell_what_waits_and_for_how_long(read, busy):
    told = read()
    bulk, ops, control = ("bulk", busy.uid), ("ops", busy.uid), ("control", "")
    assert (told["vdc_lane_queued_steps", *bulk], told["vdc_lane_running_steps", *bulk]) == (1, 1)
    assert 40 <= told["vdc_lane_queue_age_seconds", *bulk] < 50, "the other one is claimed"
    assert told["vdc_lane_queue_age_seconds", *ops] == 0
    assert told["vdc_canary_round_trip_seconds", *ops] == 0.004
    assert told["vdc_canary_unanswered_seconds", *ops] == 0
    assert 0 <= told["vdc_canary_answer_age_seconds", *ops] < 60
    assert 90 <= told["vdc_canary_unanswered_seconds", *control] < 150


def test_a_pause_between_attempts_is_not_waiting_for_a_worker(read, busy):
    later = {"queued_at": Now(), "not_before": Now() + timedelta(seconds=60)}
    Step.objects.filter(worker="", ended_at=None).update(**later)
    assert read()["vdc_lane_queued_steps", "bulk", busy.uid] == 0


def test_nodes_tell_their_signs_of_life_and_their_image_cache(read, busy):
    told = read()
    assert told["vdc_node_online", busy.uid] == 1
    assert 7 <= told["vdc_node_heartbeat_age_seconds", busy.uid] < 60
    assert told["vdc_node_image_cache_entries", busy.uid] == 3
    assert told["vdc_node_image_cache_bytes", busy.uid] == 2**30
    datacenter.node("never seen")
    NodePulse.objects.exclude(node=busy).update(heartbeat_at=None)
    assert len([key for key in read() if key[0] == "vdc_node_heartbeat_age_seconds"]) == 1


def test_the_cost_does_not_grow_with_what_is_there(operator, busy):
    def cost():
        with CaptureQueriesContext(connection) as ran:
            operator.client.get(PATH)
        return len(ran)

    cost()  # the first use of a token is written
    before = cost()
    for number in range(20):
        node = datacenter.node(f"more {number}")
        LaneCanary.objects.create(node=node.uid, lane="ops")
        Tally.objects.create(metric=tally.OPERATIONS, first=f"verb {number}", second="done", count=1)
    assert cost() == before
    assert before <= 15


def test_only_an_operator_may_read_them(client, caller, ours):
    assert client.get(PATH).status_code == 401
    assert caller(ours).client.get(PATH).status_code == 403


def test_every_lane_that_has_a_canary_is_told(read, monkeypatch):
    node = datacenter.node()
    monkeypatch.setattr(canary, "is_heard", lambda: True)
    monkeypatch.setattr(canary, "ring", lambda *bell: None)
    canary.send(1000)
    told = read()
    for lane in (("ops", node.uid), ("bulk", node.uid), ("control", "")):
        assert told["vdc_lane_queued_steps", *lane] == 0


def test_the_page_on_monitoring_names_every_metric(read, busy):
    read_there = set(re.findall(r"`(vdc_\w+)`", MONITORING.read_text()))
    told = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name, *_ in read()}
    assert read_there == told


@pytest.mark.parametrize(("number", "words"), [(0, ["config", "--syntax-only"]), (1, ["rules"])])
def test_what_the_page_tells_prometheus_is_understood(tmp_path, number, words):
    told = tmp_path / "told.yml"
    told.write_text(re.findall(r"```yaml\n(.*?)```", MONITORING.read_text(), re.DOTALL)[number])
    done = subprocess.run(["promtool", "check", *words, str(told)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
