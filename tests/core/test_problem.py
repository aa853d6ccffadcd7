"""What bad input gets, and what our own errors show."""

from __future__ import annotations

import json
import logging

import pytest
from django.test import Client
from rest_framework.test import APIClient

from accounts import services
from accounts.models import Account, Role, SshKeyPair
from core.api.parsers import MOST_BYTES

pytestmark = pytest.mark.django_db
KEYS = "/api/v1/ssh-key-pairs"


@pytest.fixture
def client() -> APIClient:
    account = Account.objects.create(name="ours")
    _, secret = services.issue_token(account, name="t", role=Role.OWNER, issued_by=None)
    client = APIClient(raise_request_exception=False)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return client


def told(answer, status: int, code: str) -> dict:
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
    body = answer.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, "about:blank")
    assert body["title"] and body["detail"]
    return body


def post(client: APIClient, body: bytes | str, content_type: str = "application/json"):
    return client.generic("POST", KEYS, body, content_type=content_type)


def test_broken_json_is_told_with_line_and_column(client):
    detail = told(post(client, '{\n  "name": "a",\n}'), 400, "malformed_body")["detail"]
    assert "line 3, column 1" in detail


@pytest.mark.parametrize("body", [b'{"name": "\xff"}', b"NaN", b'{"name": Infinity}', b"[" * 200_000])
def test_a_body_that_is_no_json_is_told_so(client, body):
    told(post(client, body), 400, "malformed_body")


@pytest.mark.parametrize("body", ["[]", "3", '"name"', "null"])
def test_a_body_that_is_no_object_is_refused(client, body):
    told(post(client, body), 400, "invalid")


def test_a_body_of_another_kind_says_what_is_wanted(client):
    answer = post(client, "name=a", "application/x-www-form-urlencoded")
    assert "application/json" in told(answer, 415, "unsupported_media_type")["detail"]


def test_a_body_that_does_not_fit_is_refused(client):
    told(post(client, b" " * (MOST_BYTES + 1)), 413, "body_too_large")


def test_an_unknown_field_is_refused_by_name(client):
    body = told(client.post(KEYS, {"name": "a", "pubic_key": "x"}), 400, "invalid")
    assert body["field"] == "pubic_key"
    assert "name, public_key" in body["detail"]


def test_a_missing_field_is_named(client):
    assert told(client.post(KEYS, {}), 400, "invalid")["field"] == "name"


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x00b", "a\ud800b", "x" * 256, None, [], {}])
def test_a_name_that_is_none_is_refused(client, name):
    assert told(post(client, json.dumps({"name": name})), 400, "invalid")["field"] == "name"
    assert not SshKeyPair.objects.exists()


def test_an_unknown_query_parameter_is_refused_with_those_that_exist(client):
    body = told(client.get(KEYS, {"limt": "3"}), 400, "unknown_parameter")
    assert body["field"] == "limt"
    assert "account, after, limit" in body["detail"]


def test_a_bad_cursor_and_a_bad_limit_are_refused(client):
    told(client.get(KEYS, {"after": "nonsense"}), 400, "bad_cursor")
    assert told(client.get(KEYS, {"limit": "0"}), 400, "invalid")["field"] == "limit"


def test_a_wrong_method_is_refused(client):
    told(client.put(KEYS, {}), 405, "method_not_allowed")
    told(client.options(KEYS), 405, "method_not_allowed")


@pytest.mark.parametrize(
    "path", ["/api/v1/nothing", "/api/v1/", "/api/", "/api/v1/ssh-key-pairs/", "/api/v1/ssh-key-pairs/a/b"]
)
def test_a_path_that_leads_nowhere_is_told_in_json(client, path):
    told(client.get(path), 404, "not_found")


def test_outside_of_the_api_a_lost_path_gets_a_page():
    answer = Client().get("/nowhere")
    assert answer.status_code == 404
    assert answer["Content-Type"].startswith("text/html")


@pytest.mark.parametrize("accepts", ["text/html", "application/xml", "nonsense"])
def test_whatever_is_accepted_json_is_answered(client, accepts):
    assert client.get(KEYS, HTTP_ACCEPT=accepts)["Content-Type"] == "application/json"


def test_a_host_name_that_is_not_ours_is_refused_in_json(client):
    assert "'evil.example'" in told(client.get(KEYS, HTTP_HOST="evil.example"), 400, "unknown_host")["detail"]


def test_an_error_of_ours_shows_an_id_and_logs_the_traceback_under_it(client, monkeypatch, caplog):
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(services, "import_ssh_key_pair", fail)
    with caplog.at_level(logging.ERROR):
        body = told(client.post(KEYS, {"name": "a", "public_key": "x"}), 500, "internal_error")
    assert "a secret detail" not in str(body)
    assert body["error_id"] in body["detail"]
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert body["error_id"] in str(record.msg)
    assert "a secret detail" in caplog.text


def test_an_error_outside_of_views_is_told_the_same_way(client, monkeypatch):
    def fail(*args: object) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr("django.contrib.sessions.middleware.SessionMiddleware.process_request", fail)
    told(client.get(KEYS), 500, "internal_error")
    answer = Client(raise_request_exception=False).get("/admin/")
    assert answer.status_code == 500
    assert "err-" in answer.content.decode()
    assert "a secret detail" not in answer.content.decode()


def test_every_answer_carries_the_id_of_its_log_lines(client):
    assert len(client.get(KEYS)["X-Request-Id"]) == 12


def test_health_is_told_without_the_database(client, django_assert_num_queries):
    with django_assert_num_queries(0):
        answer = Client().get("/healthz")
    assert (answer.status_code, answer.content) == (200, b"ok\n")
