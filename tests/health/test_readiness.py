"""GET /readyz: a line for each thing that a process needs, honest and in time."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from operations import bell
from vdcproject import readiness
from vdcproject.readiness import Readiness

PATH = "/readyz"


@pytest.fixture
def broker(monkeypatch):
    """`broker.append(False)`: Redis does not answer."""
    says = [True]
    monkeypatch.setattr(bell, "is_heard", lambda: says[-1])
    return says


def test_all_is_well(client, committed_db, broker):
    answer = client.get(PATH)
    assert (answer.status_code, answer.json()) == (
        200,
        {"ready": True, "checks": {"database": "ok", "migrations": "ok", "broker": "ok"}},
    )
    assert '\n  "database": "ok",\n' in answer.content.decode()


def test_a_migration_that_is_missing_is_named(client, committed_db, broker, monkeypatch):
    wanted = readiness._wanted()
    monkeypatch.setattr(readiness, "_wanted", lambda: wanted | {("volumes", "0099_of_tomorrow")})
    answer = client.get(PATH)
    assert answer.status_code == 503
    said = answer.json()["checks"]
    assert (said["database"], said["broker"]) == ("ok", "ok")
    assert said["migrations"] == "1 not applied, first volumes.0099_of_tomorrow; run `manage.py migrate`"


def test_a_database_without_tables_is_told_from_one_that_is_away(client, committed_db, broker, monkeypatch):
    ask = readiness.ask_alone
    monkeypatch.setattr(
        readiness, "ask_alone", lambda statement, within_s: ask("SELECT * FROM not_there_yet", within_s=within_s)
    )
    said = client.get(PATH).json()["checks"]
    assert said["database"] == "ok"
    assert "not applied, first" in said["migrations"]


def test_a_database_that_refuses_is_away_and_no_secret_is_told(client, committed_db, broker, monkeypatch):
    refusing = {"host": "/nobody/here", "user": "vdc", "password": "hunter2"}
    with monkeypatch.context() as patched:
        patched.setattr(connection, "get_connection_params", lambda: refusing)
        answer = client.get(PATH)
    assert answer.status_code == 503
    assert answer.json()["checks"] == {
        "database": "does not answer within 2 s or refuses",
        "migrations": "not known while the database is away",
        "broker": "ok",
    }


def test_a_broker_that_is_away_is_told(client, committed_db, broker):
    broker.append(False)
    answer = client.get(PATH)
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert answer.json()["checks"]["broker"].startswith("Redis does not answer")


def test_who_comes_while_another_one_asks_gets_the_last_answer(monkeypatch):
    asked, go_on = threading.Event(), threading.Event()

    def database():
        asked.set()
        assert go_on.wait(60)
        return {"database": "ok"}

    monkeypatch.setattr(readiness, "_database", database)
    monkeypatch.setattr(readiness, "_broker", lambda: "ok")
    found = Readiness()
    first = threading.Thread(target=found.look)
    first.start()
    assert asked.wait(60)
    assert found.look() == {"database": "is being asked"}
    go_on.set()
    first.join(60)
    assert found.checks == {"database": "ok", "broker": "ok"}
