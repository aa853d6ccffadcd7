"""`vdc explain` as a page of 80 columns."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cli.objects import failed_launch, operation, step
from tests.cli.scripted_api import problem

GOLDEN = Path(__file__).parent / "golden"
LOG = [
    "2026-03-01T13:02:11.204Z attempt 1 info fetching the image source=http://127.0.0.1:8101/storage/bo-1a2b3c4d",
    "2026-03-01T13:02:20.611Z attempt 2 warning the database did not answer; the word waits error=\"\\x1b[31mno\"",
]  # fmt: skip


def failed_instance() -> dict:
    story = failed_launch()
    story["request_id"] = "9f86d081884c"
    story["steps"][0]["log"] = LOG
    done = operation(
        id="op-0a1b2c3d",
        verb="instance.poweron",
        steps=[step(1, "networks.plug", started_at="2026-03-01T13:02:01Z", ended_at="2026-03-01T13:02:02Z", log=LOG)],
    )
    return {
        "id": "i-7d2kq9xw",
        "kind": "instance",
        "state": "error",
        "verdict": "i-7d2kq9xw is in error: volumes.build_volume failed on hn-3f7h2k9s: the disk of node hn-3f7h2k9s "
        "is full: 4.0 GiB are needed and 0.3 GiB are free. Next: free some room on hn-3f7h2k9s, then retry; the "
        "fetched image is kept.",
        "asked": {"wanted": "running", "image": "wmi-demolxc1 (demo)", "node": "hn-3f7h2k9s (demo)"},
        "seen": [
            {"of": "i-7d2kq9xw", "what": "absent", "at": "2026-03-01T13:05:00Z", "age_s": 30.0},
            {"of": "hn-3f7h2k9s", "what": "online, its last heartbeat", "at": "2026-03-01T13:05:28Z", "age_s": 2.0},
            {"of": "hn-3f7h2k9s", "what": "looked at all its guests", "at": None, "age_s": None},
        ],
        "operations": [story, done],
        "events": [
            {"at": "2026-03-01T12:00:00Z", "name": "instance.observed", "message": "it powered itself off"},
        ],
        "held": ["1 vCPU and 256 MiB of memory on hn-3f7h2k9s (demo)", "the address 10.77.0.12 on nw-default1"],
        "next": [
            {"verb": None, "on": "i-7d2kq9xw", "says": "free some room on hn-3f7h2k9s, then retry"},
            {"verb": "retry", "on": "i-7d2kq9xw", "says": "goes on where the operation that failed stopped"},
            {"verb": "cancel", "on": "op-7k2m9x4q", "says": "stops it at its next safe point"},
        ],
    }


@pytest.fixture
def page(api, vdc, utc, monkeypatch) -> str:
    monkeypatch.setattr("cli.render.units.now", lambda: datetime(2026, 3, 1, 13, 5, 30, tzinfo=UTC))
    api.on("GET", "explain/i-7d2kq9xw", failed_instance())
    ended = vdc("explain", "i-7d2kq9xw")
    assert ended.code == 0
    return ended.out


def test_the_page_reads_as_agreed(page):
    assert page == (GOLDEN / "explain_failed.txt").read_text(encoding="utf-8")


def test_the_page_begins_with_the_verdict_and_ends_with_what_can_be_done(page):
    assert page.startswith("i-7d2kq9xw is in error: volumes.build_volume failed on")
    assert page.split("What can be done")[1].splitlines()[2].startswith("  - vdc instance retry i-7d2kq9xw: goes on")


def test_the_lines_of_a_step_are_shown_where_it_went_wrong_and_not_where_all_was_well(page):
    assert page.count("fetching the image") == 1


def test_what_steers_terminals_is_shown_and_not_obeyed(page):
    assert "\x1b" not in page


def test_for_programs_it_is_the_document(api, vdc):
    api.on("GET", "explain/i-7d2kq9xw", failed_instance())
    assert json.loads(vdc("explain", "i-7d2kq9xw", "-o", "json").out) == failed_instance()


def test_a_row_of_which_little_is_known_is_explained(api, vdc):
    api.on("GET", "explain/i-7d2kq9xw", {"id": "i-7d2kq9xw", "verdict": "i-7d2kq9xw is running."})
    out = vdc("explain", "i-7d2kq9xw").out
    assert out.startswith("i-7d2kq9xw is running.\n")
    assert "Nothing is left to do." in out


def test_a_stray_is_told_with_the_commands_that_name_its_node(api, vdc):
    verbs = [{"verb": verb, "on": "st-7d2kq9xw", "says": "does it"} for verb in ("adopt", "quarantine")]
    asked = {"node": "hn-3f7h2k9s (one)"}
    api.on("GET", "explain/st-7d2kq9xw", {"id": "st-7d2kq9xw", "verdict": "…", "asked": asked, "next": verbs})
    out = vdc("explain", "st-7d2kq9xw").out
    assert "- vdc node adopt hn-3f7h2k9s st-7d2kq9xw --account ACCOUNT: does it\n" in out
    assert "- vdc node quarantine hn-3f7h2k9s st-7d2kq9xw: does it\n" in out


def test_an_unknown_id_is_refused_in_a_sentence(api, vdc):
    api.on("GET", "explain/i-00000000", problem(404, "There is no instance i-00000000.", "not_found"))
    ended = vdc("explain", "i-00000000")
    assert (ended.code, ended.err) == (1, "vdc: There is no instance i-00000000.\n")


def test_an_error_of_the_server_is_told_with_the_request_to_ask_for(api, vdc):
    body = problem(500, "Something went wrong here.", "internal_error", request_id="9f86d081884c")
    api.on("GET", "explain/i-7d2kq9xw", body)
    assert "9f86d081884c" in vdc("explain", "i-7d2kq9xw").err
