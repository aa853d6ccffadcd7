"""A verdict finds each kind of offence in what a campaign left, and none where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.burnin import verdict
from deploy.burnin.proxy import Download
from deploy.burnin.workload import Asked

GOOD_ERROR = {"class": "Permanent", "message": "the disk is full", "step": "volumes.build_volume"}


class CannedRecord:
    """Answers each statement of the verdict with rows of the test's own."""

    def __init__(self) -> None:
        self.answers: dict[str, list[dict[str, Any]]] = {
            verdict.OPERATIONS: [operation("op-1", "done"), operation("op-2", "failed", GOOD_ERROR)],
            verdict.STEPS: [step("op-1", "done"), step("op-2", "lost", "done")],
            verdict.SUBJECTS: [{"uid": "i-1"}],
            verdict.OBJECTS: [{"uid": "bo-1", "sha256": "abc"}],
            verdict.IMPORTS: [{"uid": "bo-2", "url": "http://127.0.0.1:1/imports/0.raw.gz"}],
        }

    def insist(self, statement: str) -> list[dict[str, Any]]:
        return self.answers[statement]


def operation(uid: str, state: str, error: dict[str, str] | None = None, ended_at: str | None = "now") -> dict:
    return {
        "uid": uid,
        "verb": "instance.launch",
        "subject_uid": "i-1",
        "state": state,
        "error": error,
        "ended_at": ended_at,
    }


def step(operation_uid: str, *outcomes: str) -> dict:
    attempts = [{"outcome": outcome} for outcome in outcomes]
    return {"operation": operation_uid, "task": "instances.start_guest", "state": "done", "attempts": attempts}


@pytest.fixture
def record() -> CannedRecord:
    return CannedRecord()


def judged(
    record: CannedRecord, tmp_path: Path, *, asked: tuple[Asked, ...] = (), downloads: tuple[Download, ...] = ()
) -> verdict.Verdict:
    return verdict.judge(record, list(asked), list(downloads), images=tmp_path, storage=tmp_path)


def test_a_good_campaign_has_no_offence_and_names_its_honest_failures(record: CannedRecord, tmp_path: Path):
    found = judged(record, tmp_path, asked=(Asked(0.0, "launch", "i-1", "op-1"),))
    assert found.is_good()
    assert found.operations == {"done": 1, "failed": 1}
    assert found.failures == ["op-2 instance.launch volumes.build_volume: Permanent: the disk is full"]


@pytest.mark.parametrize("promise", [Asked(0.0, "launch", "i-1", "op-9"), Asked(0.0, "launch", "i-9", "op-1")])
def test_what_was_promised_and_is_gone_is_lost(record: CannedRecord, tmp_path: Path, promise: Asked):
    assert len(judged(record, tmp_path, asked=(promise,)).lost) == 1


def test_an_operation_without_an_end_hangs_and_its_story_is_told(record: CannedRecord, tmp_path: Path):
    record.answers[verdict.OPERATIONS].append(operation("op-3", "running", ended_at=None))
    found = judged(record, tmp_path)
    assert (len(found.hanging), found.offenders) == (1, ["op-3"])


@pytest.mark.parametrize("missing", ["class", "message", "step"])
def test_a_failure_that_lacks_a_part_of_its_reason_is_unexplained(record: CannedRecord, tmp_path: Path, missing: str):
    record.answers[verdict.OPERATIONS].append(operation("op-3", "failed", {**GOOD_ERROR, missing: ""}))
    assert len(judged(record, tmp_path).unexplained) == 1


def test_a_step_that_two_attempts_have_done_is_duplicated(record: CannedRecord, tmp_path: Path):
    record.answers[verdict.STEPS].append(step("op-1", "done", "done"))
    assert judged(record, tmp_path).duplicated == ["instances.start_guest of op-1 was done 2 times"]


@pytest.mark.parametrize(
    ("path", "artefact"), [("/storage/bo-1", "abc.raw"), ("/imports/0.raw.gz", "bo-2")], ids=["fetch", "import"]
)
def test_bytes_fetched_after_their_receipt_are_duplicated(
    record: CannedRecord, tmp_path: Path, path: str, artefact: str
):
    (tmp_path / f"{artefact}.receipt").write_text(json.dumps({"written_at": "2026-01-01T00:00:10+00:00"}))
    receipt_at = 1767225610.0
    before, after = Download(path, receipt_at - 5), Download(path, receipt_at + 5)
    assert judged(record, tmp_path, downloads=(before,)).duplicated == []
    assert judged(record, tmp_path, downloads=(before, after)).duplicated == [
        f"{path} was fetched again 5.0 s after its receipt"
    ]


def test_findings_of_the_audit_are_offences_of_their_kind():
    found = verdict.Verdict()
    for what in ("file", "duplicate", "untrue", "state"):
        found.take_findings([{"what": what, "name": "x", "why": "y"}], "at rest")
    assert (len(found.ownerless), len(found.duplicated), len(found.untrue)) == (1, 1, 2)
    assert not found.is_good()
