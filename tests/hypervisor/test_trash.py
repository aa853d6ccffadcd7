"""The trash keeps discarded disks, tells whose they were, and deletes the oldest first."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from hypervisor.contract import Permanent
from hypervisor.receipts import receipt_path
from hypervisor.trash import Emptied, Trash, TrashEntry

MIB = 1024**2


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    path = tmp_path / "volumes"
    path.mkdir()
    return path


@pytest.fixture
def trash(tmp_path: Path, volumes: Path) -> Trash:
    return Trash(tmp_path / "trash", volumes)


def put_volume(volumes: Path, uid: str, format: str = "raw") -> Path:
    path = volumes / f"{uid}.{format}"
    path.write_bytes(os.urandom(MIB))
    receipt_path(path).write_text("{}")
    return path


def discard(trash: Trash, uid: str, operation: str = "op-1") -> TrashEntry | None:
    return trash.discard(uid, owner="a-shpoolxx", reason="the instance was terminated", operation=operation)


def rewrite(tmp_path: Path, entry: TrashEntry, **times: str) -> None:
    path = tmp_path / "trash" / entry.name / "entry.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **times}))


def said(trash: Trash) -> list[tuple[str, str]]:
    """What is told of deleted volumes: (uid, why)."""
    told: list[Emptied] = []
    trash.tell(told.append)
    return [(one.entry.uid, one.why) for one in told]


def test_a_discarded_volume_moves_with_its_receipt_and_its_story(trash: Trash, volumes: Path, tmp_path: Path) -> None:
    content = put_volume(volumes, "vol-a", "qcow2").read_bytes()
    entry = discard(trash, "vol-a")
    assert entry is not None
    assert (entry.uid, entry.owner, entry.reason, entry.operation) == (
        "vol-a",
        "a-shpoolxx",
        "the instance was terminated",
        "op-1",
    )
    assert entry.size_bytes >= MIB
    assert entry.discarded_at < entry.expires_at
    assert list(volumes.iterdir()) == []
    assert (tmp_path / "trash" / entry.name / "vol-a.qcow2").read_bytes() == content
    assert (tmp_path / "trash" / entry.name / "vol-a.qcow2.receipt").exists()
    assert trash.entries() == [entry]


def test_discarding_twice_gives_the_same_entry(trash: Trash, volumes: Path) -> None:
    put_volume(volumes, "vol-a")
    assert discard(trash, "vol-a") == discard(trash, "vol-a")
    assert len(trash.entries()) == 1


def test_there_is_nothing_to_discard_where_nothing_was(trash: Trash) -> None:
    assert discard(trash, "vol-a") is None


def test_a_move_that_was_broken_off_is_finished(trash: Trash, volumes: Path, tmp_path: Path) -> None:
    path = put_volume(volumes, "vol-a")
    receipt = receipt_path(path).read_bytes()
    first = discard(trash, "vol-a")
    assert first is not None
    (tmp_path / "trash" / first.name / "vol-a.raw.receipt").rename(receipt_path(path))  # as if we had died in between
    assert discard(trash, "vol-a", "op-1") == first
    assert (tmp_path / "trash" / first.name / "vol-a.raw.receipt").read_bytes() == receipt
    assert list(volumes.iterdir()) == []


def test_a_second_file_of_the_same_name_does_not_replace_the_first(trash: Trash, volumes: Path) -> None:
    put_volume(volumes, "vol-a")
    first = discard(trash, "vol-a")
    put_volume(volumes, "vol-a")
    second = discard(trash, "vol-a")
    assert first is not None
    assert second is not None
    assert first.name != second.name
    assert len(trash.entries()) == 2


def test_a_volume_is_not_mistaken_for_one_whose_name_begins_alike(trash: Trash, volumes: Path) -> None:
    put_volume(volumes, "vol-a.b")
    put_volume(volumes, "vol-a")
    discard(trash, "vol-a.b")
    entry = discard(trash, "vol-a")
    assert entry is not None
    assert entry.uid == "vol-a"
    assert entry.files == ("vol-a.raw", "vol-a.raw.receipt")


def test_emptying_removes_what_has_expired_only_and_tells_why_once(trash: Trash, volumes: Path, tmp_path: Path) -> None:
    put_volume(volumes, "vol-old")
    put_volume(volumes, "vol-new")
    old, new = discard(trash, "vol-old"), discard(trash, "vol-new")
    assert old is not None
    rewrite(tmp_path, old, expires_at="2020-01-01T00:00:00.000+00:00")
    assert [entry.uid for entry in trash.empty()] == ["vol-old"]
    assert said(trash) == [("vol-old", "its time was over at 2020-01-01T00:00:00.000+00:00")]
    assert said(trash) == []
    assert trash.entries() == [new]
    assert not (tmp_path / "trash" / old.name).exists()


def test_emptying_for_room_takes_the_oldest_until_it_is_enough(trash: Trash, volumes: Path, tmp_path: Path) -> None:
    for number, uid in enumerate(["vol-c", "vol-a", "vol-b"]):
        put_volume(volumes, uid)
        entry = discard(trash, uid)
        assert entry is not None
        rewrite(tmp_path, entry, discarded_at=f"2026-01-0{number + 1}T00:00:00.000+00:00")
    assert [entry.uid for entry in trash.empty(need_bytes=MIB)] == ["vol-c"]
    assert [entry.uid for entry in trash.empty(need_bytes=0)] == []
    assert [entry.uid for entry in trash.empty(need_bytes=MIB + MIB // 2, purpose="an image")] == ["vol-a", "vol-b"]
    assert ("vol-a", "space was needed for an image") in said(trash)


def test_what_could_not_be_told_is_told_the_next_time(trash: Trash, volumes: Path) -> None:
    put_volume(volumes, "vol-a")
    discard(trash, "vol-a")
    trash.empty(need_bytes=1)
    with pytest.raises(ZeroDivisionError):
        trash.tell(lambda emptied: 1 / 0)
    assert said(trash) == [("vol-a", "space was needed")]


def test_a_deletion_that_was_broken_off_is_finished_and_told(trash: Trash, volumes: Path, tmp_path: Path) -> None:
    put_volume(volumes, "vol-a")
    entry = discard(trash, "vol-a")
    (tmp_path / "trash" / entry.name / "vol-a.raw").unlink()  # as if we had died after the first file
    assert trash.delete(entry.name, "token demo asked for it") == entry
    assert trash.entries() == []
    assert said(trash) == [("vol-a", "token demo asked for it")]
    assert trash.delete(entry.name, "again") is None


def test_a_node_that_keeps_no_trash_deletes_at_once(volumes: Path, tmp_path: Path) -> None:
    trash = Trash(tmp_path / "trash", volumes, timedelta(0))
    path = put_volume(volumes, "vol-a")
    discard(trash, "vol-a")
    assert not path.exists()
    assert trash.entries() == []
    assert said(trash) == [("vol-a", "this node keeps no trash")]


def test_an_entry_says_until_when_it_is_kept(volumes: Path, tmp_path: Path) -> None:
    trash = Trash(tmp_path / "trash", volumes, timedelta(hours=2))
    put_volume(volumes, "vol-a")
    entry = discard(trash, "vol-a")
    kept = datetime.fromisoformat(entry.expires_at) - datetime.fromisoformat(entry.discarded_at)
    assert kept == timedelta(hours=2)


def test_a_restored_volume_is_what_it_was_and_restoring_twice_is_restoring_once(trash: Trash, volumes: Path) -> None:
    path = put_volume(volumes, "vol-a")
    content, receipt = path.read_bytes(), receipt_path(path).read_bytes()
    entry = discard(trash, "vol-a")
    assert (entry.format, entry.volume_size_bytes) == ("raw", MIB)
    assert trash.restore(entry.name) == entry
    assert (path.read_bytes(), receipt_path(path).read_bytes()) == (content, receipt)
    assert trash.entries() == []
    assert trash.restore(entry.name) is None


def test_a_restore_that_was_broken_off_is_finished_and_its_proof_came_first(
    trash: Trash, volumes: Path, tmp_path: Path
) -> None:
    path = put_volume(volumes, "vol-a")
    entry = discard(trash, "vol-a")
    receipt = tmp_path / "trash" / entry.name / "vol-a.raw.receipt"
    receipt.rename(receipt_path(path))
    assert trash.restore(entry.name) == entry
    assert path.exists()
    assert receipt_path(path).exists()


def test_nothing_is_restored_over_another_volume_and_undoing_that_leaves_both(trash: Trash, volumes: Path) -> None:
    put_volume(volumes, "vol-a")
    entry = discard(trash, "vol-a")
    other = put_volume(volumes, "vol-a").read_bytes()
    with pytest.raises(Permanent, match="already"):
        trash.restore(entry.name)
    words = {"uid": "vol-a", "owner": "a-1", "reason": "undone", "operation": "op-2"}
    assert trash.take_again(entry.name, **words) == entry
    assert (volumes / "vol-a.raw").read_bytes() == other
    assert trash.entries() == [entry]


@pytest.mark.parametrize("how_far", ["all", "half"])
def test_a_restore_is_undone_twice_wherever_it_came_to(
    trash: Trash, volumes: Path, tmp_path: Path, how_far: str
) -> None:
    path = put_volume(volumes, "vol-a")
    entry = discard(trash, "vol-a")
    if how_far == "all":
        trash.restore(entry.name)
    else:
        (tmp_path / "trash" / entry.name / "vol-a.raw.receipt").rename(receipt_path(path))
    words = {"uid": "vol-a", "owner": "a-1", "reason": "undone", "operation": "op-2"}
    for _ in range(2):
        trash.take_again(entry.name, **words)
    assert list(volumes.iterdir()) == []
    [left] = trash.entries()
    assert left.files == ("vol-a.raw", "vol-a.raw.receipt")
    assert trash.restore(left.name) == left


def test_names_that_we_did_not_write_are_left_alone(trash: Trash, volumes: Path, tmp_path: Path) -> None:
    (tmp_path / "trash" / "holiday.jpg").write_bytes(b"x")
    (tmp_path / "trash" / "somebody's").mkdir()
    (tmp_path / "trash" / "broken").mkdir()
    (tmp_path / "trash" / "broken" / "entry.json").write_text("{}")
    put_volume(volumes, "vol-a")
    entry = discard(trash, "vol-a")
    assert entry is not None
    (tmp_path / "trash" / entry.name / "note").write_text("keep me")
    assert trash.empty(need_bytes=1) == [entry]
    assert said(trash)
    left = {str(path.relative_to(tmp_path / "trash")) for path in (tmp_path / "trash").rglob("*")}
    assert left == {
        ".lock",
        ".emptied",
        "holiday.jpg",
        "somebody's",
        "broken",
        "broken/entry.json",
        entry.name,
        f"{entry.name}/note",
    }


@pytest.mark.parametrize("uid", ["../etc", "", ".", "a/b"])
def test_an_id_that_is_no_file_name_is_refused(trash: Trash, uid: str) -> None:
    with pytest.raises(Permanent):
        discard(trash, uid)


def test_what_a_killed_attempt_at_a_volume_left_goes_with_its_discard(trash: Trash, volumes: Path) -> None:
    for name in ("vol-a.raw.op-1.1.1.part", "vol-a.raw.receipt.new", "vol-b.raw.op-1.1.1.part"):
        (volumes / name).touch()
    assert discard(trash, "vol-a") is None, "it never was whole"
    assert [path.name for path in volumes.iterdir()] == ["vol-b.raw.op-1.1.1.part"]


def test_a_directory_whose_entry_a_killed_process_had_taken_away_goes_too(trash: Trash, tmp_path: Path) -> None:
    (tmp_path / "trash" / "vol-a.op-1").mkdir()
    trash.empty()
    assert not (tmp_path / "trash" / "vol-a.op-1").exists()
