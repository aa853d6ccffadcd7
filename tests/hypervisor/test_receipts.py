"""Receipts prove what is whole, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hypervisor import receipts
from hypervisor.contract import Permanent


def make(path: Path, content: bytes = b"disk", *, length_is_fixed: bool = True) -> Path:
    temporary = receipts.temporary_path(path, "op-1.1")
    temporary.write_bytes(content)
    receipts.commit(temporary, path, operation="op-1", facts={"sha256": "ab"}, length_is_fixed=length_is_fixed)
    return path


def test_a_committed_artefact_has_a_receipt_with_its_facts(tmp_path: Path) -> None:
    receipt = receipts.read(make(tmp_path / "a.raw"))
    assert receipt is not None
    assert (receipt.size_bytes, receipt.operation, receipt.facts) == (4, "op-1", {"sha256": "ab"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.raw", "a.raw.receipt"]


def test_the_temporary_name_carries_the_attempt(tmp_path: Path) -> None:
    assert receipts.temporary_path(tmp_path / "a.raw", "op-1.2").name == "a.raw.op-1.2.part"


def test_an_artefact_without_receipt_is_not_whole(tmp_path: Path) -> None:
    path = make(tmp_path / "a.raw")
    receipts.receipt_path(path).unlink()
    assert receipts.read(path) is None


def test_a_receipt_without_artefact_proves_nothing(tmp_path: Path) -> None:
    path = make(tmp_path / "a.raw")
    path.unlink()
    assert receipts.read(path) is None


def test_an_artefact_of_another_length_is_not_whole(tmp_path: Path) -> None:
    path = make(tmp_path / "a.raw")
    path.write_bytes(b"dis")
    assert receipts.read(path) is None


def test_a_file_that_grows_in_use_keeps_its_receipt(tmp_path: Path) -> None:
    path = make(tmp_path / "a.qcow2", length_is_fixed=False)
    path.write_bytes(b"disk and more")
    assert receipts.read(path) is not None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b'{"file_name": "a.raw"}'])
def test_a_damaged_receipt_proves_nothing(tmp_path: Path, content: bytes) -> None:
    path = make(tmp_path / "a.raw")
    receipts.receipt_path(path).write_bytes(content)
    assert receipts.read(path) is None


def test_a_receipt_of_another_file_proves_nothing(tmp_path: Path) -> None:
    path = make(tmp_path / "a.raw")
    receipt = json.loads(receipts.receipt_path(path).read_bytes())
    receipts.receipt_path(path).write_text(json.dumps({**receipt, "file_name": "b.raw"}))
    assert receipts.read(path) is None


@pytest.mark.parametrize("tag", ["", "../x", "a/b", ".hidden", "a b", "x" * 201])
def test_a_tag_that_is_no_file_name_is_refused(tmp_path: Path, tag: str) -> None:
    with pytest.raises(Permanent):
        receipts.temporary_path(tmp_path / "a.raw", tag)


def test_a_broken_write_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "entry.json"
    receipts.write_durably(path, b"old")
    with pytest.raises(TypeError):
        receipts.write_durably(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_write_left_is_taken_up_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    left = [tmp_path / "a.raw.op-0.1.part", tmp_path / "a.raw.receipt.new"]
    for file in left:
        file.write_bytes(b"half")
    assert receipts.stale_parts(path) == left
    make(path)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.raw", "a.raw.op-0.1.part", "a.raw.receipt"]
