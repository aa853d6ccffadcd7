"""The trash gives way before the file system of the node is full, the oldest first, and the node tells of it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from hypervisor import housekeeping, local
from hypervisor.free_space import spare_bytes_missing
from hypervisor.image_store import ImageStore
from hypervisor.receipts import receipt_path
from hypervisor.trash import Trash
from operations.models import Event
from tests import datacenter
from tests.committed import _only_rows, committed_db  # noqa: F401 - fixtures

MIB = 2**20
DISK_BYTES = 512 * MIB
VOLUME_BYTES = 40 * MIB


@pytest.fixture
def node_dir(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of its own, as large as half a GiB."""
    disk, place = tmp_path / "disk", tmp_path / "node"
    place.mkdir()
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(disk)], check=True)
    subprocess.run(["mount", "-o", "loop", str(disk), str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def trash(node_dir: Path, committed_db: None, monkeypatch: pytest.MonkeyPatch) -> Trash:  # noqa: F811
    (node_dir / "volumes").mkdir()
    store = ImageStore(node_dir / "images")
    trash = Trash(node_dir / "trash", node_dir / "volumes", timedelta(hours=1))
    monkeypatch.setattr(local, "node_dir", lambda: node_dir)
    monkeypatch.setattr(local, "trash", lambda: trash)
    monkeypatch.setattr(local, "images", lambda hypervisor: store)
    return trash


def discard(node_dir: Path, trash: Trash, uid: str) -> None:
    path = node_dir / "volumes" / f"{uid}.raw"
    path.write_bytes(os.urandom(VOLUME_BYTES))
    receipt_path(path).write_text("{}")
    trash.discard(uid, owner="a-owner000", reason="test", operation="op-1")


def fill(node_dir: Path, leave_bytes: int) -> None:
    """Somebody else's file takes all but so much."""
    numbers = os.statvfs(node_dir)
    with (node_dir / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, numbers.f_bavail * numbers.f_frsize - leave_bytes)


def events() -> list[str]:
    return list(Event.objects.filter(name="node.trash.emptied").order_by("id").values_list("message", flat=True))


def test_nothing_goes_while_there_is_room_and_time(node_dir, trash):
    node = datacenter.node()
    discard(node_dir, trash, "vol-a")
    housekeeping.tidy(node)
    assert [entry.uid for entry in trash.entries()] == ["vol-a"]
    assert events() == []


def test_a_file_system_that_is_nearly_full_empties_the_oldest_first_and_only_as_many_as_needed(node_dir, trash):
    node = datacenter.node()
    for uid in ("vol-c", "vol-a", "vol-b"):
        discard(node_dir, trash, uid)
    fill(node_dir, leave_bytes=4 * MIB)
    assert 0 < spare_bytes_missing(node_dir) < VOLUME_BYTES
    housekeeping.tidy(node)
    assert spare_bytes_missing(node_dir) == 0
    assert [entry.uid for entry in trash.entries()] == ["vol-a", "vol-b"]
    [told] = events()
    assert told.startswith("vol-c of a-owner000 (40.0 MiB) was deleted from the trash of ")
    assert f"space was needed for the file system {node_dir}" in told


def test_a_file_system_without_a_byte_left_is_emptied_all_the_same(node_dir, trash):
    node = datacenter.node()
    discard(node_dir, trash, "vol-a")
    fill(node_dir, leave_bytes=0)
    housekeeping.tidy(node)
    assert trash.entries() == []
    assert len(events()) == 1


def test_a_copy_that_lacks_room_takes_it_from_the_trash_and_housekeeping_tells_of_it(node_dir, trash):
    node = datacenter.node()
    for uid in ("vol-a", "vol-b"):
        discard(node_dir, trash, uid)
    trash.empty(need_bytes=VOLUME_BYTES, purpose="an image")
    assert events() == []
    housekeeping.tidy(node)
    [told] = events()
    assert "vol-a" in told
    assert told.endswith("space was needed for an image")
    housekeeping.tidy(node)
    assert len(events()) == 1


def test_the_spare_room_is_a_part_of_a_small_disk_and_never_more_than_a_gibibyte(monkeypatch):
    class Numbers:
        f_frsize = 4096
        f_bavail = 0
        f_blocks = 0

    def missing(size_bytes: int) -> int:
        Numbers.f_blocks = size_bytes // Numbers.f_frsize
        monkeypatch.setattr(os, "statvfs", lambda directory: Numbers)
        return spare_bytes_missing(Path("/"))

    assert missing(8 * 1024 * MIB) == int(8 * 1024 * MIB * 0.05)
    assert missing(2**42) == 2**30


def test_what_nobody_foresaw_does_not_end_the_housekeeping(node_dir, trash, monkeypatch):
    """A thread that is gone empties no trash for the life of the process, and the disk fills."""
    node, rounds, twice = datacenter.node(), [], threading.Event()

    def tidy(node):
        rounds.append(node)
        if len(rounds) == 1:
            raise OSError("a file went while it was looked at")
        twice.set()
        threading.Event().wait()

    monkeypatch.setattr(housekeeping, "EVERY_S", 0.01)
    monkeypatch.setattr(housekeeping, "tidy", tidy)
    threading.Thread(target=housekeeping._tidy_for_ever, args=[node], daemon=True).start()
    assert twice.wait(60)
