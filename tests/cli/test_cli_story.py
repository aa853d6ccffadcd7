"""The story of an operation, as a page of 80 columns."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cli.objects import GIB, failed_launch, instance, operation, step
from tests.cli.scripted_api import problem

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def three_minutes_later(utc, monkeypatch):
    monkeypatch.setattr("cli.render.units.now", lambda: datetime(2026, 3, 1, 13, 5, 30, tzinfo=UTC))


def running_launch():
    return operation(
        "running",
        waiting_for="room in the bulk lane of hn-3f7h2k9s",
        steps=[
            step(
                1,
                "volumes.fetch_image",
                "running",
                started_at="2026-03-01T13:05:20Z",
                attempts=[{"number": 1, "started_at": "2026-03-01T13:05:20Z", "ended_at": None, "outcome": "running"}],
                progress={"done": GIB, "total": 4 * GIB, "unit": "bytes"},
            ),
            step(2, "instances.start_guest", "blocked", lane="ops"),
        ],
    )


@pytest.mark.parametrize(("name", "told"), [("story_failed", failed_launch()), ("story_running", running_launch())])
def test_the_story_reads_as_agreed(api, vdc, three_minutes_later, name, told):
    api.on("GET", "operations/op-7k2m9x4q", told)
    api.on("GET", "instances/i-7d2kq9xw", instance("error", allowed_verbs=["retry", "terminate"]))
    ended = vdc("operation", "show", "op-7k2m9x4q")
    assert ended.code == 0
    assert ended.out == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_the_story_keeps_within_80_columns_and_every_id_whole(api, vdc):
    api.on("GET", "operations/op-7k2m9x4q", failed_launch())
    out = vdc("operation", "show", "op-7k2m9x4q").out
    assert max(map(len, out.splitlines())) <= 80
    for uid in ("op-7k2m9x4q", "i-7d2kq9xw", "vol-k2x8m4n1", "hn-3f7h2k9s"):
        assert uid in out
    assert "\x1b" not in out


def test_a_story_is_told_also_when_its_subject_cannot_be_had(api, vdc):
    api.on("GET", "operations/op-7k2m9x4q", failed_launch())
    api.on("GET", "instances/i-7d2kq9xw", problem(404, "There is no i-7d2kq9xw."))
    ended = vdc("operation", "show", "op-7k2m9x4q")
    assert ended.code == 0
    assert "What went wrong" in ended.out


def test_a_story_of_almost_nothing_is_told(api, vdc):
    api.on("GET", "operations/op-7k2m9x4q", {"id": "op-7k2m9x4q", "state": "queued"})
    ended = vdc("operation", "show", "op-7k2m9x4q")
    assert ended.code == 0
    assert "queued" in ended.out


def test_for_programs_the_story_is_the_object(api, vdc):
    api.on("GET", "operations/op-7k2m9x4q", failed_launch())
    assert json.loads(vdc("operation", "show", "op-7k2m9x4q", "-o", "json").out) == failed_launch()


def test_a_success_speaks_of_neither_undone_nor_held(api, vdc):
    api.on("GET", "operations/op-7k2m9x4q", operation(steps=[step(1, "networks.plug")]))
    out = vdc("operation", "show", "op-7k2m9x4q").out
    assert "undone" not in out
    assert "held" not in out
    assert "Nothing: it is done." in out


def test_a_resumed_operation_names_the_one_before_and_the_steps_that_were_done_there(api, vdc):
    told = operation("running", steps=[step(1, "volumes.fetch_image") | {"done_in": "op-earlier1"}])
    api.on("GET", "operations/op-7k2m9x4q", told | {"resumes": "op-earlier2", "allowed_verbs": ["cancel"]})
    page = vdc("operation", "show", "op-7k2m9x4q").out
    assert re.search(r"resumes +op-earlier2", page)
    assert "done in op-earlier1" in page
    assert "vdc operation cancel op-7k2m9x4q" in page


def test_an_undone_copy_has_no_speed(api, vdc):
    undone = step(1, "volumes.fetch_image", "undone") | {"progress": {"done": 2**20, "total": None, "unit": "bytes"}}
    api.on("GET", "operations/op-7k2m9x4q", operation("cancelled", steps=[undone]))
    page = vdc("operation", "show", "op-7k2m9x4q").out
    assert "1.0 MiB" in page and "/s" not in page
