"""The trash keeps discarded disks, tells whose they were, and deletes the oldest first."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

from hypervisor.contract import Permanent
from hypervisor.receipts import receipt_path
from hypervisor.trash import Trash, TrashEntry

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


def grow_old(tmp_path: Path, entry: TrashEntry, discarded_at: str) -> None:
    path = tmp_path / "trash" / entry.name / "entry.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "discarded_at": discarded_at}))


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


def test_emptying_removes_what_is_older_than_a_day_only(trash: Trash, volumes: Path, tmp_path: Path) -> None:
    put_volume(volumes, "vol-old")
    put_volume(volumes, "vol-new")
    old, new = discard(trash, "vol-old"), discard(trash, "vol-new")
    assert old is not None
    grow_old(tmp_path, old, "2020-01-01T00:00:00.000+00:00")
    assert [entry.uid for entry in trash.empty()] == ["vol-old"]
    assert trash.entries() == [new]
    assert not (tmp_path / "trash" / old.name).exists()


def test_emptying_for_room_takes_the_oldest_until_it_is_enough(trash: Trash, volumes: Path, tmp_path: Path) -> None:
    for number, uid in enumerate(["vol-c", "vol-a", "vol-b"]):
        put_volume(volumes, uid)
        entry = discard(trash, uid)
        assert entry is not None
        grow_old(tmp_path, entry, f"2999-01-0{number + 1}T00:00:00.000+00:00")
    assert [entry.uid for entry in trash.empty(need_bytes=MIB)] == ["vol-c"]
    assert [entry.uid for entry in trash.empty(need_bytes=0)] == []
    assert [entry.uid for entry in trash.empty(need_bytes=MIB + MIB // 2)] == ["vol-a", "vol-b"]


def test_names_that_we_did_not_write_are_left_alone(trash: Trash, volumes: Path, tmp_path: Path) -> None:
    (tmp_path / "trash" / "holiday.jpg").write_bytes(b"x")
    (tmp_path / "trash" / "somebody's").mkdir()
    (tmp_path / "trash" / "broken").mkdir()
    (tmp_path / "trash" / "broken" / "entry.json").write_text("{}")
    put_volume(volumes, "vol-a")
    entry = discard(trash, "vol-a")
    assert entry is not None
    (tmp_path / "trash" / entry.name / "note").write_text("keep me")
    assert trash.empty(older_than=timedelta(days=-1)) == [entry]
    left = {str(path.relative_to(tmp_path / "trash")) for path in (tmp_path / "trash").rglob("*")}
    assert left == {
        ".lock",
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
