"""Each guard of the engine is taken out once, in a copy of the tree: a test that is named here must fail then.

A guard whose text is not found any more was rewritten: say here how it is taken out now.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent.parent
LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", ".pytest_cache", ".ruff_cache")
CLAIMS = "tests/operations/test_claims.py"
FENCED_BESIDE = f"{CLAIMS}::test_a_fenced_attempt_writes_nothing_while_its_successor_works"
TIMEOUT_S = 300


@dataclass(frozen=True)
class Guard:
    """What is taken out: `text` of `file` becomes `instead`. Of the tests at least one notices."""

    file: str
    text: str
    instead: str
    tests: tuple[str, ...]


GUARDS = {
    "claim": Guard(
        "operations/handover.py",
        """AND step.attempt = %(attempt)s AND step.worker = ''
           AND (step.state = 'queued' OR step.state = 'undoing' AND step.queued_at IS NOT NULL)""",
        "AND step.ended_at IS NULL",
        (f"{CLAIMS}::test_eight_bells_at_once_do_the_work_once",),
    ),
    "fencing of what goes as planned": Guard(
        "operations/handover.py",
        """AND attempt = %(attempt)s AND worker = %(worker)s AND ended_at IS NULL
           AND (%(next)s""",
        """AND ended_at IS NULL
           AND (%(next)s""",
        (f"{CLAIMS}::test_a_fenced_attempt_writes_nothing", FENCED_BESIDE),
    ),
    "fencing of all else": Guard(
        "operations/protocol.py",
        "if (step.attempt, step.worker) == (run.step.attempt, run.step.worker):",
        "if step.ended_at is None:",
        (f"{CLAIMS}::test_a_fenced_attempt_writes_nothing", FENCED_BESIDE),
    ),
    "file lock": Guard(
        "operations/locks.py",
        "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "os.fstat(descriptor)",
        ("tests/operations/test_subjects.py::test_file_lock_of_the_subject_makes_a_newer_attempt_wait",),
    ),
    "receipt check": Guard(
        "hypervisor/receipts.py",
        "if receipt.file_name != artefact.name or receipt.size_bytes not in (None, size_bytes):",
        "if receipt.file_name is None:",
        (
            "tests/hypervisor/test_receipts.py::test_an_artefact_of_another_length_is_not_whole",
            "tests/hypervisor/test_receipts.py::test_a_receipt_of_another_file_proves_nothing",
        ),
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tree as it is now, without what is no source."""
    tree = tmp_path_factory.mktemp("mutations") / "tree"
    shutil.copytree(PROJECT, tree, ignore=LEFT_BEHIND)
    yield tree
    shutil.rmtree(tree)


def outcomes(tree: Path, tests: tuple[str, ...]) -> dict[str, str]:
    """How the named tests ended in that tree, with a PostgreSQL and a Redis of their own: {"test_…": "PASSED"}."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("VDC_", "PYTEST_", "DJANGO_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *tests],
        cwd=tree,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    ended = dict(re.findall(r"^\S+::(test_\w+)\S* (PASSED|FAILED|ERROR)", done.stdout, re.MULTILINE))
    assert ended.keys() == {test.rpartition("::")[2] for test in tests}, done.stdout + done.stderr
    return ended


def test_the_named_tests_pass_while_all_guards_are_there(copy: Path) -> None:
    named = tuple(dict.fromkeys(test for guard in GUARDS.values() for test in guard.tests))
    assert set(outcomes(copy, named).values()) == {"PASSED"}


@pytest.mark.parametrize("guard", GUARDS.values(), ids=GUARDS.keys())
def test_a_named_test_fails_without_the_guard(copy: Path, guard: Guard) -> None:
    file = copy / guard.file
    whole = file.read_text()
    assert whole.count(guard.text) == 1, f"{guard.file} has no such line any more: {guard.text}"
    file.write_text(whole.replace(guard.text, guard.instead))
    try:
        assert "FAILED" in outcomes(copy, guard.tests).values(), f"nobody notices that {guard.text!r} is gone"
    finally:
        file.write_text(whole)
