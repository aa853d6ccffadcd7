"""What came of it: operations lost, duplicated, hanging or unexplained, by the record, the receipts and the proxy."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from deploy.burnin.proxy import Download
from deploy.burnin.record import Record
from deploy.burnin.workload import Asked

OPERATIONS = "SELECT uid, verb, subject_uid, state, error, created_at, ended_at FROM operations_operation ORDER BY id"
STEPS = """
    SELECT operation.uid AS operation, step.task, step.state, step.attempts
      FROM operations_step AS step JOIN operations_operation AS operation ON operation.id = step.operation_id
"""
SUBJECTS = """
    SELECT uid FROM instances_instance UNION ALL SELECT uid FROM volumes_image UNION ALL SELECT uid FROM volumes_volume
"""
OBJECTS = "SELECT uid, sha256 FROM volumes_backupobject WHERE sha256 <> ''"
IMPORTS = """
    SELECT operation.params ->> 'url' AS url, stored.uid
      FROM operations_operation AS operation
      JOIN volumes_image AS image ON image.uid = operation.subject_uid
      JOIN volumes_backupobject AS stored ON stored.id = image.backup_object_id
     WHERE operation.verb = 'image.import'
"""
EXPLAINED = ("class", "message", "step")


@dataclass
class Verdict:
    """Sentences by offence; `offenders` are the operations to tell the story of."""

    operations: dict[str, int] = field(default_factory=dict)  # by the state that they ended in
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    hanging: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    ownerless: list[str] = field(default_factory=list)
    untrue: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # honest ones, with their reason
    offenders: list[str] = field(default_factory=list)

    def is_good(self) -> bool:
        return not any((self.lost, self.duplicated, self.hanging, self.unexplained, self.ownerless, self.untrue))

    def take_findings(self, findings: list[dict[str, str]], when: str) -> None:
        """What the audit found."""
        kinds = {"duplicate": self.duplicated, "untrue": self.untrue, "state": self.untrue}
        for found in findings:
            sentence = f"{found['what']} {found['name']}: {found['why']} ({when})"
            kinds.get(found["what"], self.ownerless).append(sentence)


def judge(record: Record, asked: list[Asked], downloads: list[Download], *, images: Path, storage: Path) -> Verdict:
    """Read everything that ended, or did not. `images`, `storage`: the directories with the receipts of both."""
    verdict = Verdict()
    operations = {row["uid"]: row for row in record.insist(OPERATIONS)}
    subjects = {row["uid"] for row in record.insist(SUBJECTS)}
    for promise in asked:
        if promise.operation not in operations:
            verdict.lost.append(f"{promise.operation} ({promise.verb} of {promise.subject}) was promised and is gone")
        elif promise.subject not in subjects:
            verdict.lost.append(f"{promise.subject} was promised with {promise.operation} and is gone")
    for uid, row in operations.items():
        verdict.operations[row["state"]] = verdict.operations.get(row["state"], 0) + 1
        told = row["error"] or {}
        if row["ended_at"] is None:
            verdict.hanging.append(f"{uid} ({row['verb']} of {row['subject_uid']}) is {row['state']}")
            verdict.offenders.append(uid)
        elif row["state"] == "failed" and not all(told.get(word) for word in EXPLAINED):
            verdict.unexplained.append(f"{uid} ({row['verb']}) failed and says only {told}")
            verdict.offenders.append(uid)
        elif row["state"] == "failed":
            verdict.failures.append(f"{uid} {row['verb']} {told['step']}: {told['class']}: {told['message']}")
    for step in record.insist(STEPS):
        times = sum(attempt["outcome"] == "done" for attempt in step["attempts"])
        if times > 1:
            verdict.duplicated.append(f"{step['task']} of {step['operation']} was done {times} times")
            verdict.offenders.append(step["operation"])
    verdict.duplicated += _fetched_again(record, downloads, images, storage)
    return verdict


def _fetched_again(record: Record, downloads: list[Download], images: Path, storage: Path) -> list[str]:
    """Bytes that were copied although a receipt proved already that they were here."""
    proofs: dict[str, float] = {}
    for row in record.insist(OBJECTS):
        receipt = images / f"{row['sha256']}.raw.receipt"
        if receipt.exists():
            proofs[f"/storage/{row['uid']}"] = _written_at(json.loads(receipt.read_text()))
    for row in record.insist(IMPORTS):
        receipt = storage / f"{row['uid']}.receipt"
        if receipt.exists():
            proofs["/" + row["url"].split("/", 3)[3]] = _written_at(json.loads(receipt.read_text()))
    return [
        f"{download.path} was fetched again {download.began_at - proofs[download.path]:.1f} s after its receipt"
        for download in downloads
        if download.began_at > proofs.get(download.path, float("inf"))
    ]


def _written_at(receipt: dict[str, Any]) -> float:
    return datetime.fromisoformat(receipt["written_at"]).timestamp()
