"""What was discarded comes back from the trash with its row, its room and its proof, or stays where it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from core.errors import Conflict, NotFound
from hypervisor import files_client, local
from hypervisor.image_store import ImageStore
from hypervisor.models import NodeRoom
from hypervisor.placement import NoRoom
from hypervisor.receipts import commit, receipt_path
from hypervisor.trash import Trash
from hypervisor.volume_files import VolumeFiles
from operations import engine
from tests import datacenter
from tests.ringing import _only_rows, bells, committed_db  # noqa: F401 - fixtures
from volumes import trash as services
from volumes.models import Volume

MIB = 2**20


class World:
    """One node whose volumes and trash are real files."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.node = datacenter.node()
        self.directory = directory / "volumes"
        self.trash = Trash(directory / "trash", self.directory)
        files = VolumeFiles(self.directory, ImageStore(directory / "images"), self.trash)
        monkeypatch.setattr(local, "trash", lambda: self.trash)
        monkeypatch.setattr(local, "volumes", lambda hypervisor: files)
        monkeypatch.setattr(files_client, "read_trash", lambda node: [asdict(one) for one in self.trash.entries()])

    def discarded(self, *, row: bool = True, **changes: object) -> str:
        """A volume in the trash; returns the name of its entry."""
        volume = Volume(account=datacenter.account(), node=self.node, size_bytes=MIB, format="raw", state="deleted")
        for name, value in changes.items():
            setattr(volume, name, value)
        if row:
            volume.save()
        part = self.directory / f"{volume.uid}.part"
        part.write_bytes(bytes(MIB))
        commit(part, self.directory / f"{volume.uid}.raw", operation="op-1.1", facts={})
        entry = self.trash.discard(volume.uid, owner=volume.account.uid, reason="test", operation="op-1")
        return entry.name

    def restore(self, entry: str) -> tuple[Volume, object]:
        return services.restore_volume(self.node, entry, account=datacenter.account("operators"), requested_by="op")

    def used(self) -> int:
        return NodeRoom.objects.get(node=self.node).disk_bytes_used


@pytest.fixture
def world(bells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:  # noqa: F811
    return World(tmp_path, monkeypatch)


def test_a_restored_volume_is_available_again_and_takes_room(world, bells):  # noqa: F811
    volume, operation = world.restore(world.discarded())
    assert (volume.state, world.used()) == ("creating", MIB)
    bells.answer()
    volume.refresh_from_db()
    operation.refresh_from_db()
    assert (operation.state, volume.state, volume.room_held, world.used()) == ("done", "available", True, MIB)
    artefact = world.directory / f"{volume.uid}.raw"
    assert artefact.exists()
    assert receipt_path(artefact).exists()
    assert world.trash.entries() == []


def test_a_disk_that_never_had_a_row_gets_one_of_the_account_that_its_entry_names(world, bells):  # noqa: F811
    volume, _ = world.restore(world.discarded(row=False))
    bells.answer()
    volume.refresh_from_db()
    assert (volume.account, volume.state, volume.size_bytes) == (datacenter.account(), "available", MIB)


def test_an_unknown_entry_is_refused_by_name(world):
    with pytest.raises(NotFound, match=r"vol-nobody00\.op-1"):
        world.restore("vol-nobody00.op-1")


def test_a_volume_that_is_not_deleted_is_not_restored_over_itself(world):
    with pytest.raises(Conflict) as refused:
        world.restore(world.discarded(state="available"))
    assert refused.value.code == "wrong_state"
    assert len(world.trash.entries()) == 1


def test_what_lies_in_the_trash_of_one_node_is_not_the_volume_of_another(world):
    other = datacenter.node("n2")
    with pytest.raises(Conflict, match=other.uid):
        world.restore(world.discarded(node=other))


def test_without_room_nothing_is_begun_and_the_refusal_says_what_is_missing(world):
    world.node.disk_bytes = MIB // 2
    world.node.save()
    entry = world.discarded()
    with pytest.raises(NoRoom, match=r"1\.0 MiB of disk"):
        world.restore(entry)
    assert world.used() == 0
    assert Volume.objects.get().state == "deleted"
    assert [one.name for one in world.trash.entries()] == [entry]


def test_an_entry_that_went_meanwhile_fails_the_restore_and_gives_the_room_back(world, bells):  # noqa: F811
    volume, operation = world.restore(entry := world.discarded())
    world.trash.delete(entry, "space was needed")
    bells.answer()
    volume.refresh_from_db()
    operation.refresh_from_db()
    assert operation.state == "failed"
    assert "not in the trash" in operation.error["message"]
    assert (volume.state, volume.room_held, world.used()) == ("deleted", False, 0)


def test_a_disk_without_a_good_receipt_goes_back_to_the_trash(world, bells):  # noqa: F811
    entry = world.discarded()
    [uid] = [one.uid for one in world.trash.entries()]
    receipt = receipt_path(world.directory.parent / "trash" / entry / f"{uid}.raw")
    receipt.write_text(json.dumps({"file_name": "another"}))
    volume, operation = world.restore(entry)
    bells.answer()
    volume.refresh_from_db()
    operation.refresh_from_db()
    assert (operation.state, volume.state, world.used()) == ("failed", "deleted", 0)
    assert not (world.directory / f"{uid}.raw").exists()
    [left] = world.trash.entries()
    assert left.uid == uid
    assert left.name in operation.undone[0]


def test_a_cancelled_restore_leaves_the_volume_in_the_trash_and_no_room_taken(world, bells):  # noqa: F811
    volume, operation = world.restore(world.discarded())
    engine.cancel(operation, reason="the tests think better of it")
    bells.answer()
    volume.refresh_from_db()
    operation.refresh_from_db()
    assert (operation.state, volume.state, world.used()) == ("cancelled", "deleted", 0)
    assert len(world.trash.entries()) == 1
