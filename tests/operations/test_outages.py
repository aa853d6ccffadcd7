"""Database and Redis stop and come back: nothing is lost, nothing is done twice, and nobody is blamed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from celery import Celery
from django.db import connection
from django.db.models import F
from psycopg2 import extensions

from core import database
from core.database import use_deadlines
from operations import bell, protocol, ringing, settling, sweep, timing
from operations.models import Event, Step
from tests.operations.parts import NODE, act, begin, steps_of, volume

AWAY_S = 2.0  # more than three leases of a hurried engine


@pytest.fixture
def impatient(monkeypatch):
    """The deadlines of workers, shorter."""
    monkeypatch.setattr(database, "WORKER_CALL_S", 0.3)
    monkeypatch.setattr(settling, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(settling, "LONGEST_PAUSE_S", 0.2)
    use_deadlines("worker")
    yield
    extensions.set_wait_callback(None)
    connection.close()


@pytest.fixture
def sweeping(in_threads, monkeypatch):
    """A sweep runs beside the test; bells are taken as rung."""
    monkeypatch.setattr(sweep, "chores", [])
    monkeypatch.setattr(ringing, "queue_lengths", lambda lanes: dict.fromkeys(lanes, 10**6))
    stop = threading.Event()
    [sweeper] = in_threads(lambda: sweep.sweep(stop))
    yield sweeper
    stop.set()
    sweeper.result(30)


def test_a_mute_database_for_longer_than_the_lease_costs_nothing_but_time(
    bells, quick, impatient, sweeping, cluster, in_threads
):
    working, go_on, did = threading.Event(), threading.Event(), []

    @act("copy")
    def copy(run):
        did.append(run.step.attempt)
        working.set()
        assert go_on.wait(30)

    operation = begin(volume(), {"act": "copy", "idle_timeout_s": 60}, {"act": "nothing"})
    [worker] = in_threads(lambda: protocol.run_step(*bells.pop(0)))
    assert working.wait(30)
    with cluster.frozen_postgresql():
        threading.Event().wait(AWAY_S)  # while it still works
        go_on.set()
        threading.Event().wait(AWAY_S)  # while it cannot say that it is done
    worker.result(30)
    operation.refresh_from_db()
    assert operation.state == "done"
    first, second = steps_of(operation)
    assert [past["outcome"] for past in first.attempts] == ["done"], "neither lost nor timed out"
    assert did == [1]
    assert second.attempt == 1
    assert Event.objects.filter(operation_uid=operation.uid, name="volume.build.done").count() == 1
    [told] = Event.objects.filter(operation_uid=operation.uid, name="volume.build.waited")
    waited_s = re.fullmatch(
        r"the end of tests.plain was known ([\d.]+) s before the database could be told", told.message
    )
    assert float(waited_s[1]) >= AWAY_S - 0.1
    assert not sweeping.done(), "the sweep goes on"


def test_a_word_that_is_heard_at_once_is_not_called_a_wait(bells):
    operation = begin(volume())
    bells.answer()
    assert not Event.objects.filter(operation_uid=operation.uid, name="volume.build.waited").exists()


def test_a_step_that_waited_for_its_worker_says_for_how_long_and_how_often_it_was_rung_again(bells):
    operation = begin(volume())
    Step.objects.update(queued_at=F("queued_at") - timedelta(seconds=23), rings=2)
    bells.answer()
    [told] = Event.objects.filter(operation_uid=operation.uid, name="volume.build.waited")
    assert re.fullmatch(
        rf"tests.plain waited 23.\d s for a free worker of the lane ops on node {NODE}; "
        "its bell was rung again 2 times",
        told.message,
    )


def test_work_that_asks_a_mute_database_waits_for_it(bells, quick, impatient, cluster, in_threads):
    asked, frozen, tries = threading.Event(), threading.Event(), []

    @act("ask")
    def ask(run):
        asked.set()
        assert frozen.wait(30)
        tries.append(run.step.attempt)
        return {"volumes": Step.objects.count()}

    operation = begin(volume(), {"act": "ask", "deadline_s": 40})
    [worker] = in_threads(lambda: protocol.run_step(*bells.pop(0)))
    assert asked.wait(30)
    with cluster.frozen_postgresql():
        frozen.set()
        threading.Event().wait(AWAY_S)
    worker.result(30)
    operation.refresh_from_db()
    assert (operation.state, steps_of(operation)[0].result) == ("done", {"volumes": 1})
    assert len(tries) > 1, "it asked again, as the same attempt"
    assert set(tries) == {1}


def test_a_worker_that_is_really_gone_is_found_after_an_outage_too(
    bells, quick, impatient, sweeping, cluster, in_threads
):
    operation = begin(volume())
    [(step_id, attempt)] = bells
    assert protocol._claimed(step_id, attempt, "gone:1/abc") is not None
    with cluster.frozen_postgresql():
        threading.Event().wait(AWAY_S)
    deadline = time.monotonic() + 30
    while not Step.objects.filter(pk=step_id, attempt=2, state="queued").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    [step] = steps_of(operation)
    assert "no sign of life from its worker gone:1/abc" in step.attempts[0]["error"]


# --- Redis ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_redis(tmp_path_factory, committed_db, monkeypatch):
    """A Redis that may be stopped and killed, and bells that go there: the process and a client."""
    folder = tmp_path_factory.mktemp("r")
    socket = folder / "redis.sock"
    process = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    app = Celery("elsewhere", fixups=[], set_as_current=False)
    app.config_from_object("vdcproject.celery_settings")
    app.conf.broker_url = f"redis+socket://{socket}"
    monkeypatch.setattr(bell, "current_app", app)
    monkeypatch.setattr(bell, "_silent_until", 0.0)
    client = redis.Redis(unix_socket_path=str(socket))
    deadline = time.monotonic() + 30
    while True:
        try:
            client.ping()
            break
        except redis.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    yield process, client
    _end(process)
    client.close()
    app.close()


def _end(process):
    if process.poll() is None:
        os.kill(process.pid, signal.SIGCONT)
        process.kill()
    process.wait(30)


def make_due():
    """As if the bells had been rung long ago."""
    Step.objects.update(rung_at=F("rung_at") - timedelta(seconds=timing.LAST_RING_S))


def test_a_flushed_redis_is_rung_again_by_the_sweep(own_redis):
    _, client = own_redis
    begin(volume())
    assert client.llen(f"node.{NODE}.ops") == 1
    make_due()
    sweep.ring_again()
    assert client.llen(f"node.{NODE}.ops") == 1, "its bell lies there still"
    client.flushall()
    sweep.ring_again()
    assert client.llen(f"node.{NODE}.ops") == 1
    sweep.ring_again()
    assert client.llen(f"node.{NODE}.ops") == 1


def test_without_redis_a_request_is_answered_at_once_and_the_sweep_rings_when_it_is_back(own_redis):
    process, _ = own_redis
    process.kill()
    process.wait(30)
    begun = time.monotonic()
    operations = [begin(volume()) for _ in range(20)]
    assert time.monotonic() - begun < 5, "the first costs some tries, the next ones nothing"
    assert {operation.state for operation in operations} == {"queued"}
    make_due()
    sweep.ring_again()  # goes on without a word but a warning
    assert not Step.objects.filter(rings__gt=0).exists(), "a bell that could not be rung is not counted"


def test_a_mute_redis_holds_a_request_for_seconds_at_most(own_redis):
    process, client = own_redis
    begin(volume())
    os.kill(process.pid, signal.SIGSTOP)
    begun = time.monotonic()
    for _ in range(5):
        begin(volume())
    assert time.monotonic() - begun < 12
    os.kill(process.pid, signal.SIGCONT)
    make_due()
    client.flushall()
    deadline = time.monotonic() + 30
    while client.llen(f"node.{NODE}.ops") < 6:  # the bell is silent for 2 s after a failure
        assert time.monotonic() < deadline
        make_due()
        sweep.ring_again()
        time.sleep(0.1)


def test_the_socket_of_postgresql_may_be_gone_for_a_while(bells, quick, impatient, cluster, in_threads):
    """Refused connections are outages like silence."""
    working, go_on = threading.Event(), threading.Event()

    @act("copy")
    def copy(run):
        working.set()
        assert go_on.wait(30)

    operation = begin(volume(), {"act": "copy"})
    [worker] = in_threads(lambda: protocol.run_step(*bells.pop(0)))
    assert working.wait(30)
    socket = Path(connection.settings_dict["HOST"]) / ".s.PGSQL.5432"
    hidden = socket.with_name("hidden")
    pids = [pid for (pid,) in _asked("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")]
    socket.rename(hidden)
    try:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)  # backends of this test's own server
        go_on.set()
        threading.Event().wait(0.5)
        assert not worker.done()
    finally:
        hidden.rename(socket)
    worker.result(30)
    connection.close()
    operation.refresh_from_db()
    assert operation.state == "done"
    assert [past["outcome"] for past in steps_of(operation)[0].attempts] == ["done"]


def _asked(question):
    with connection.cursor() as cursor:
        cursor.execute(question)
        return cursor.fetchall()
