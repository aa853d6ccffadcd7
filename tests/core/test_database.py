"""Which errors of the database only delay, and how long we wait for it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg2
import pytest
from django.db import DatabaseError, IntegrityError, connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg2 import extensions

from accounts.models import Account
from core import database


@pytest.fixture
def other(transactional_db: None) -> Iterator[BaseDatabaseWrapper]:
    """A second connection to the same database."""
    second = connections.create_connection("default")
    second.settings_dict = connection.settings_dict
    yield second
    second.close()


@pytest.fixture
def deadlines(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process waits as a worker does, half a second at most."""
    monkeypatch.setattr(database, "WORKER_CALL_S", 0.5)
    connection.close()
    database.use_deadlines("worker")
    yield
    extensions.set_wait_callback(None)
    connection.close()


def error_of(action) -> Exception:
    with pytest.raises(database.DATABASE_ERRORS) as caught:
        action()
    return caught.value


def run(sql: str, on: BaseDatabaseWrapper = connection) -> None:
    with on.cursor() as cursor:
        cursor.execute(sql)


@pytest.mark.django_db(transaction=True)
def test_a_line_that_was_cut_only_delays(other):
    run("SELECT 1")
    run(f"SELECT pg_terminate_backend({connection.connection.info.backend_pid})", other)
    exc = error_of(lambda: run("SELECT 1"))
    assert database.unreachable(exc) and not database.busy(exc)
    again = error_of(lambda: run("SELECT 1"))
    assert database.unreachable(again), "the closed connection says InterfaceError"
    connection.close()
    run("SELECT 1")


def test_a_server_that_is_not_there_only_delays(other):
    other.settings_dict = {**other.settings_dict, "HOST": "/nonexistent"}
    assert database.unreachable(error_of(other.ensure_connection))


def test_a_lock_held_by_somebody_else_only_delays_but_is_busy(other):
    Account.objects.create(name="x")
    with transaction.atomic():
        run("SELECT * FROM accounts_account FOR UPDATE")
        run("SET lock_timeout = '50ms'", other)
        exc = error_of(lambda: run("SELECT * FROM accounts_account FOR UPDATE", other))
    assert database.unreachable(exc) and database.busy(exc)


@pytest.mark.django_db
def test_a_statement_that_takes_too_long_only_delays_but_is_busy():
    with transaction.atomic():
        run("SET LOCAL statement_timeout = '50ms'")
        exc = error_of(lambda: run("SELECT pg_sleep(5)"))
        transaction.set_rollback(True)
    assert database.unreachable(exc) and database.busy(exc)


@pytest.mark.django_db
@pytest.mark.parametrize("sql", ["SELECT nonsense", "SELECT 1/0", "INSERT INTO accounts_account (name) VALUES (NULL)"])
def test_our_own_mistakes_do_not_count_as_an_outage(sql):
    with transaction.atomic():
        exc = error_of(lambda: run(sql))
        transaction.set_rollback(True)
    assert not database.unreachable(exc)


@pytest.mark.parametrize("exc", [DatabaseError("save() did nothing"), IntegrityError("x"), ValueError("x")])
def test_errors_without_a_cause_in_the_driver_are_bugs(exc):
    assert not database.unreachable(exc)


def test_a_mute_server_is_given_up_and_the_next_connection_is_good(deadlines, cluster):
    run("SELECT 1")
    with cluster.frozen_postgresql():
        begun = time.monotonic()
        exc = error_of(lambda: run("SELECT 1"))
        assert database.unreachable(exc) and not database.busy(exc)
        assert isinstance(exc.__cause__, database.Mute)
        assert connection.connection.closed, "nobody may trust this line again"
        connection.close()
        assert database.unreachable(error_of(connection.ensure_connection)), "connecting has the same deadline"
        assert time.monotonic() - begun < 5
    connection.close()
    run("SELECT 1")


def test_a_transaction_that_was_cut_off_leaves_its_block_with_the_loss(deadlines, cluster):
    def write() -> None:
        with transaction.atomic():
            Account.objects.create(name="lost")
            with cluster.frozen_postgresql():
                run("SELECT 1")

    assert database.unreachable(error_of(write))
    connection.close()
    assert not Account.objects.filter(name="lost").exists()


def test_one_request_has_one_budget_for_all_its_waiting(deadlines, cluster, monkeypatch):
    monkeypatch.setattr(database, "WEB_BUDGET_S", 0.6)
    monkeypatch.setattr(database, "breaker", database.Breaker())
    connection.close()
    database.use_deadlines("web")
    database.begin_request()
    run("SELECT pg_sleep(0.3)")
    with cluster.frozen_postgresql():
        begun = time.monotonic()
        error_of(lambda: run("SELECT 1"))
        assert time.monotonic() - begun < 0.55, "0.3 of 0.6 s were spent before"
        connection.close()
        begun = time.monotonic()
        error_of(connection.ensure_connection)
        assert time.monotonic() - begun < 0.25, "nothing was left"
    assert not database.breaker.admits()
    database.begin_request()
    connection.close()
    run("SELECT 1")
    assert database.breaker.admits(), "an answer closes the breaker"
    monkeypatch.setattr(database._budget, "left_s", None)


class TestBreaker:
    def test_an_untouched_breaker_admits_everyone(self):
        assert all(database.Breaker().admits() for _ in range(3))

    def test_after_an_expiry_nobody_is_admitted_for_a_while(self):
        breaker = database.Breaker()
        breaker.trip()
        assert not breaker.admits()

    def test_after_the_pause_one_is_admitted_on_trial(self):
        breaker = database.Breaker(pause_s=0)
        breaker.trip()
        assert breaker.admits()
        assert not breaker.admits(), "the others wait for the trial"

    def test_an_answer_admits_everyone(self):
        breaker = database.Breaker()
        breaker.trip()
        breaker.answered()
        assert breaker.admits() and breaker.admits()

    def test_a_trial_that_asked_nothing_gives_its_place_away(self):
        breaker = database.Breaker(pause_s=0)
        breaker.trip()
        breaker.admits()
        breaker.trial_over()
        assert breaker.admits()


def test_the_error_of_a_deadline_is_one_of_the_driver():
    assert issubclass(database.Mute, psycopg2.OperationalError)
