"""The web door while PostgreSQL is stopped (SIGSTOP), in a process of its own as gunicorn runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from accounts import services
from accounts.models import Account, Role
from core.database import WEB_BUDGET_S

PATIENCE_S = 30
PROMISE_S = 6
PROJECT = Path(__file__).resolve().parent.parent.parent


def await_answer(client: httpx.Client, path: str) -> httpx.Response:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            answer = client.get(path)
            if answer.status_code < 500:
                return answer
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"{path} did not come back"
        time.sleep(0.1)


@pytest.fixture
def web(transactional_db: None, cluster, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a web process on the database of the tests."""
    account = Account.objects.create(name="ours")
    _, secret = services.issue_token(account, name="t", role=Role.OWNER, issued_by=None)
    stack_file = tmp_path / "stack.json"
    database = {**cluster.stack()["database"], "NAME": connection.settings_dict["NAME"]}
    stack_file.write_text(json.dumps(cluster.stack(database=database)))
    socket = cluster.directory / "web.sock"
    command = ["-m", "gunicorn", "vdcproject.wsgi:application", "--bind", f"unix:{socket}"]
    with (tmp_path / "web.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command, "--worker-class", "gthread", "--threads", "4"],
            cwd=PROJECT,
            env={**os.environ, "VDC_STACK_FILE": str(stack_file), "VDC_PROCESS": "web"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    headers = {"Authorization": f"Bearer {secret}"}
    transport = httpx.HTTPTransport(uds=str(socket))
    try:
        with httpx.Client(transport=transport, base_url="http://localhost", headers=headers, timeout=20) as client:
            await_answer(client, "/healthz")
            yield client
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def timed_get(client: httpx.Client, path: str = "/api/v1/account", **options) -> tuple[httpx.Response, float]:
    begun = time.monotonic()
    return client.get(path, **options), time.monotonic() - begun


def assert_away(answer: httpx.Response) -> None:
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["code"] == "database_unreachable"


def test_a_mute_database_gets_503_in_time_and_the_next_request_at_once(web, cluster):
    assert await_answer(web, "/api/v1/account").status_code == 200
    with cluster.frozen_postgresql():
        answer, took_s = timed_get(web)
        assert_away(answer)
        assert took_s < PROMISE_S, "the health check, the connect and the statements share one budget"
        assert took_s > WEB_BUDGET_S / 2, "it did try"
        answer, took_s = timed_get(web)
        assert_away(answer)
        assert took_s < 1, "the breaker answers without trying"
        answer, took_s = timed_get(web, "/healthz")
        assert (answer.status_code, took_s < 1) == (200, True)
    assert await_answer(web, "/api/v1/account").status_code == 200


def test_many_requests_at_once_all_get_their_503_in_time(web, cluster):
    await_answer(web, "/api/v1/account")
    with cluster.frozen_postgresql(), ThreadPoolExecutor(12) as pool:
        for answer, took_s in pool.map(lambda _: timed_get(web), range(12)):
            assert_away(answer)
            assert took_s < PROMISE_S
    assert await_answer(web, "/api/v1/account").status_code == 200


def test_pages_that_need_a_session_say_so_in_plain_words(web, cluster):
    """The error comes up in the middleware of sessions, where no view can catch it."""
    User.objects.create_user("olga", password="a-long-pass-phrase", is_staff=True, is_superuser=True)
    browser = Client()
    browser.login(username="olga", password="a-long-pass-phrase")
    cookies = {"vdc_tests_session": browser.cookies["vdc_tests_session"].value}
    with cluster.frozen_postgresql():
        answer, took_s = timed_get(
            web, "/admin/", headers={"Cookie": f"vdc_tests_session={cookies['vdc_tests_session']}"}
        )
        assert answer.status_code == 503
        assert answer.headers["Content-Type"].startswith("text/html")
        assert "Retry-After" in answer.headers
        assert "The database does not answer" in answer.text
        assert took_s < PROMISE_S
    assert await_answer(web, "/admin/login/").status_code == 200


READY = {"database": "ok", "migrations": "ok", "broker": "ok"}


def test_readiness_is_told_in_time_while_the_database_is_mute_and_holds_up_nobody(web, cluster):
    assert await_answer(web, "/readyz").json() == {"ready": True, "checks": READY}
    with cluster.frozen_postgresql(), ThreadPoolExecutor(12) as pool:
        for answer, took_s in pool.map(lambda _: timed_get(web, "/readyz"), range(12)):
            assert answer.status_code in (200, 503), "those that come meanwhile get the answer before"
            assert took_s < PROMISE_S
        answer, took_s = timed_get(web, "/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"]["database"] == "does not answer within 2 s or refuses"
        assert answer.json()["checks"]["broker"] == "ok"
        assert took_s < PROMISE_S
        assert timed_get(web, "/healthz")[0].status_code == 200
    assert await_answer(web, "/readyz").json()["ready"]


def test_readiness_is_told_in_time_while_redis_is_mute(web, cluster):
    assert await_answer(web, "/readyz").json()["ready"]
    with cluster.frozen_redis():
        answer, took_s = timed_get(web, "/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"] == {
            **READY,
            "broker": "Redis does not answer; what is asked for waits until it does",
        }
        assert took_s < PROMISE_S
    assert await_answer(web, "/readyz").json()["ready"]


def test_readiness_neither_trips_the_breaker_nor_is_refused_by_it(web, cluster):
    with cluster.frozen_postgresql():
        assert timed_get(web, "/readyz")[0].status_code == 503
        answer, took_s = timed_get(web)
        assert_away(answer)
        assert took_s > WEB_BUDGET_S / 2, "the breaker was not tripped by asking for readiness"
        answer, took_s = timed_get(web, "/readyz")
        assert answer.json()["checks"]["database"] == "does not answer within 2 s or refuses"
        assert took_s > 1, "it asked, though the breaker refuses others now"
