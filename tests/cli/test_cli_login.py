"""Where the command finds its API and its token."""

from __future__ import annotations

import json
import sys

import pytest

from tests.cli.objects import instance
from tests.cli.scripted_api import TOKEN


@pytest.fixture
def login_file(monkeypatch, tmp_path):
    monkeypatch.delenv("VDC_URL", raising=False)
    monkeypatch.delenv("VDC_TOKEN", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    return tmp_path / "vdc-login.json"


def test_without_a_login_it_says_what_to_do_and_ends_with_2(login_file, vdc):
    ended = vdc("instance", "list")
    assert ended.code == 2
    assert str(login_file) in ended.err
    assert "make demo" in ended.err
    assert "VDC_URL" in ended.err
    assert ended.out == ""


def test_the_login_file_beside_the_interpreter_is_enough(api, login_file, vdc):
    api.on("GET", "instances", {"items": [instance()], "next": None})
    login_file.write_text(json.dumps({"url": api.url, "token": TOKEN}))
    assert vdc("instance", "list").code == 0


def test_a_url_may_name_the_api_path(api, monkeypatch, vdc):
    api.on("GET", "instances", {"items": [], "next": None})
    monkeypatch.setenv("VDC_URL", api.url + "/api/v1/")
    assert vdc("instance", "list").code == 0


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"\xff\xfe", b'"text"', b'{"url": "http://127.0.0.1"}', b'{"url": 7, "token": "x"}', b""],
)
def test_a_malformed_login_file_is_wrong_use_and_named(login_file, vdc, content):
    login_file.write_bytes(content)
    ended = vdc("instance", "list")
    assert ended.code == 2
    assert str(login_file) in ended.err
    assert "Traceback" not in ended.err


def test_the_token_of_the_file_is_never_sent_to_another_url(api, login_file, vdc, monkeypatch):
    login_file.write_text(json.dumps({"url": "http://127.0.0.1:1", "token": TOKEN}))
    monkeypatch.setenv("VDC_URL", api.url)
    ended = vdc("instance", "list")
    assert ended.code == 2
    assert "VDC_TOKEN is not" in ended.err
    assert api.requests == []


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://127.0.0.1", "http://", "http://host:port", "http://a:99999"])
def test_a_url_that_is_none_is_wrong_use(vdc, monkeypatch, url):
    monkeypatch.setenv("VDC_URL", url)
    monkeypatch.setenv("VDC_TOKEN", "x")
    ended = vdc("instance", "list")
    assert ended.code == 2
    assert url in ended.err


def test_a_token_with_a_line_feed_is_wrong_use_and_not_printed(vdc, monkeypatch):
    monkeypatch.setenv("VDC_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("VDC_TOKEN", "secret-one\n")
    ended = vdc("instance", "list")
    assert ended.code == 2
    assert "secret-one" not in ended.err


def test_a_bad_token_is_one_sentence_with_a_way_out(api, vdc, monkeypatch):
    monkeypatch.setenv("VDC_TOKEN", "stale")
    ended = vdc("instance", "list")
    assert ended.code == 1
    assert "does not accept the token from VDC_URL and VDC_TOKEN" in ended.err
    assert "make demo" in ended.err
    assert "stale" not in ended.err
