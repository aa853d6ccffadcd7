"""Volume files are whole clones of store entries, or they are not there."""

from __future__ import annotations

import errno
import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

from hypervisor import free_space, qcow2, volume_files
from hypervisor.contract import Cancelled, Permanent, SourceSpec, StoreEntry, VolumeSpec
from hypervisor.image_store import ImageStore
from hypervisor.receipts import receipt_path
from hypervisor.trash import Trash
from hypervisor.volume_files import VolumeFiles
from tests.hypervisor.noting_watch import NotingWatch

MIB = 1024**2
RAW = os.urandom(3 * MIB) + bytes(20 * MIB) + os.urandom(MIB) + bytes(8 * MIB)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def image(store: ImageStore, tmp_path: Path) -> StoreEntry:
    path = tmp_path / "image.gz"
    path.write_bytes(gzip.compress(RAW, 1))
    return store.fetch(SourceSpec(path.as_uri(), "gz", "", None, None), NotingWatch(), tag="op-1.1")


@pytest.fixture
def trash(tmp_path: Path) -> Trash:
    return Trash(tmp_path / "trash", tmp_path / "volumes")


@pytest.fixture
def volumes(tmp_path: Path, store: ImageStore, trash: Trash) -> VolumeFiles:
    return VolumeFiles(tmp_path / "volumes", store, trash)


@pytest.fixture
def watch() -> NotingWatch:
    return NotingWatch()


def test_a_qcow2_volume_is_an_overlay_grown_to_its_size(
    volumes: VolumeFiles, image: StoreEntry, watch: NotingWatch
) -> None:
    made = volumes.build(VolumeSpec("vol-a", "qcow2", 64 * MIB, image.sha256), watch, tag="op-2.1")
    told = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", made.path]))
    assert told["virtual-size"] == made.size_bytes == 64 * MIB
    assert told["full-backing-filename"] == image.path
    assert told["backing-filename-format"] == "raw"
    assert told["format-specific"]["data"]["lazy-refcounts"] is False
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", image.path, made.path], check=True)
    assert [(command.argv[0], command.exit_code) for command in watch.commands] == [("qemu-img", 0)]


def test_a_raw_volume_has_the_content_and_the_holes_of_its_image(
    volumes: VolumeFiles, image: StoreEntry, watch: NotingWatch
) -> None:
    made = volumes.build(VolumeSpec("vol-a", "raw", 64 * MIB, image.sha256), watch, tag="op-2.1")
    assert Path(made.path).read_bytes() == RAW + bytes(64 * MIB - len(RAW))
    assert Path(made.path).stat().st_blocks * 512 <= 5 * MIB
    assert watch.reports == [] or watch.reports[-1] == (4 * MIB, 4 * MIB, "bytes")  # shared blocks need no copy


def test_a_raw_volume_is_copied_by_hand_where_the_kernel_cannot(
    volumes: VolumeFiles, image: StoreEntry, watch: NotingWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*numbers: int) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(volume_files.os, "copy_file_range", cannot)
    made = volumes.build(VolumeSpec("vol-a", "raw", 32 * MIB, image.sha256), watch, tag="op-2.1")
    assert Path(made.path).read_bytes() == RAW


def test_the_files_of_qemu_belong_to_qemu(
    tmp_path: Path, store: ImageStore, trash: Trash, image: StoreEntry, watch: NotingWatch
) -> None:
    volumes = VolumeFiles(tmp_path / "volumes", store, trash, owner_uid=65534, owner_gid=65534)
    made = volumes.build(VolumeSpec("vol-a", "qcow2", 64 * MIB, image.sha256), watch, tag="op-2.1")
    status = Path(made.path).stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (65534, 65534, 0o600)
    made = volumes.build(VolumeSpec("vol-b", "raw", 64 * MIB, image.sha256), watch, tag="op-2.1")
    assert Path(made.path).stat().st_uid == os.getuid()


@pytest.mark.parametrize("format", ["qcow2", "raw"])
def test_a_blank_volume_is_all_zero_and_takes_no_room(volumes: VolumeFiles, watch: NotingWatch, format: str) -> None:
    made = volumes.build(VolumeSpec("vol-a", format, 10**9 + 1), watch, tag="op-2.1")
    assert made.size_bytes == 10**9 + 512  # whole sectors
    assert Path(made.path).stat().st_blocks * 512 < MIB
    told = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", "-f", format, made.path]))
    assert told["virtual-size"] == made.size_bytes
    assert "backing-filename" not in told


@pytest.mark.parametrize("format", ["qcow2", "raw"])
def test_building_again_finds_the_volume(
    volumes: VolumeFiles, image: StoreEntry, watch: NotingWatch, format: str
) -> None:
    spec = VolumeSpec("vol-a", format, 64 * MIB, image.sha256)
    made = volumes.build(spec, watch, tag="op-2.1")
    inode = Path(made.path).stat().st_ino
    with Path(made.path).open("r+b") as file:  # a guest has written to it
        file.seek(10 * MIB if format == "raw" else 0, os.SEEK_SET if format == "raw" else os.SEEK_END)
        file.write(b"the guest's data")
    found = volumes.build(spec, watch, tag="op-2.2")
    assert found.was_present
    assert not made.was_present
    assert Path(found.path).stat().st_ino == inode
    assert volumes.path("vol-a") == Path(made.path)


def test_a_volume_of_that_name_but_another_size_is_never_overwritten(
    volumes: VolumeFiles, image: StoreEntry, watch: NotingWatch
) -> None:
    volumes.build(VolumeSpec("vol-a", "raw", 64 * MIB, image.sha256), watch, tag="op-2.1")
    for spec in (VolumeSpec("vol-a", "raw", 65 * MIB), VolumeSpec("vol-a", "qcow2", 64 * MIB)):
        with pytest.raises(Permanent, match="is here already as raw of 67,108,864 bytes"):
            volumes.build(spec, watch, tag="op-3.1")


@pytest.mark.parametrize("format", ["qcow2", "raw"])
def test_an_image_bigger_than_the_volume_is_refused_with_both_sizes(
    volumes: VolumeFiles, image: StoreEntry, watch: NotingWatch, tmp_path: Path, format: str
) -> None:
    with pytest.raises(Permanent, match=r"33,554,432 bytes .* volume vol-a of 1,048,576 bytes"):
        volumes.build(VolumeSpec("vol-a", format, MIB, image.sha256), watch, tag="op-2.1")
    assert list((tmp_path / "volumes").iterdir()) == []


def test_an_image_that_is_not_in_the_store_is_named(volumes: VolumeFiles, watch: NotingWatch) -> None:
    with pytest.raises(Permanent, match="0" * 64):
        volumes.build(VolumeSpec("vol-a", "raw", MIB, "0" * 64), watch, tag="op-2.1")


@pytest.mark.parametrize(
    "spec",
    [VolumeSpec("vol-a", "vmdk", MIB), VolumeSpec("vol-a", "raw", 0), VolumeSpec("../vol", "raw", MIB)],
)
def test_a_spec_without_sense_is_refused(volumes: VolumeFiles, watch: NotingWatch, spec: VolumeSpec) -> None:
    with pytest.raises(Permanent):
        volumes.build(spec, watch, tag="op-2.1")


def test_a_file_that_nothing_proves_whole_goes_to_the_trash(
    volumes: VolumeFiles, trash: Trash, image: StoreEntry, watch: NotingWatch, tmp_path: Path
) -> None:
    spec = VolumeSpec("vol-a", "raw", 64 * MIB, image.sha256)
    made = volumes.build(spec, watch, tag="op-2.1")
    receipt_path(Path(made.path)).unlink()
    assert volumes.present("vol-a") is None
    assert not volumes.build(spec, watch, tag="op-2.2").was_present
    [entry] = trash.entries()
    assert entry.reason == "found without a good receipt"
    assert (tmp_path / "trash" / entry.name / "vol-a.raw").exists()


def test_what_a_killed_attempt_left_is_removed(
    volumes: VolumeFiles, image: StoreEntry, watch: NotingWatch, tmp_path: Path
) -> None:
    stale = tmp_path / "volumes" / "vol-a.raw.op-2.1.part"
    stale.write_bytes(b"half")
    other = tmp_path / "volumes" / "vol-ab.raw.op-2.1.part"
    other.write_bytes(b"somebody else's")
    volumes.build(VolumeSpec("vol-a", "raw", 64 * MIB, image.sha256), watch, tag="op-2.2")
    assert not stale.exists()
    assert other.exists()


@pytest.mark.parametrize("format", ["qcow2", "raw"])
def test_a_cancelled_build_leaves_nothing(
    volumes: VolumeFiles, image: StoreEntry, watch: NotingWatch, tmp_path: Path, format: str
) -> None:
    watch.cancelled.set()
    with pytest.raises(Cancelled):
        volumes.build(VolumeSpec("vol-a", format, 64 * MIB, image.sha256), watch, tag="op-2.1")
    assert list((tmp_path / "volumes").iterdir()) == []


def test_a_copy_asks_for_room_and_takes_it_from_the_trash(
    volumes: VolumeFiles, trash: Trash, image: StoreEntry, watch: NotingWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume_files, "_share_blocks", lambda source, target: False)
    volumes.build(VolumeSpec("vol-old", "raw", 64 * MIB, image.sha256), watch, tag="op-2.1")
    trash.discard("vol-old", owner="a-x", reason="terminated", operation="op-3")
    monkeypatch.setattr(free_space, "free_bytes", lambda directory: 0 if trash.entries() else 10**12)
    volumes.build(VolumeSpec("vol-new", "raw", 64 * MIB, image.sha256), watch, tag="op-4.1")
    assert trash.entries() == []


def test_a_copy_without_room_is_refused_and_leaves_nothing(
    volumes: VolumeFiles, image: StoreEntry, watch: NotingWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume_files, "_share_blocks", lambda source, target: False)
    monkeypatch.setattr(free_space, "free_bytes", lambda directory: 1000)
    with pytest.raises(Permanent, match="has 1,000 bytes free"):
        volumes.build(VolumeSpec("vol-a", "raw", 64 * MIB, image.sha256), watch, tag="op-2.1")
    assert list((tmp_path / "volumes").iterdir()) == []


def test_a_tool_that_fails_is_quoted(
    volumes: VolumeFiles, image: StoreEntry, watch: NotingWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "qemu-img").write_text("#!/bin/sh\necho 'cannot do that' >&2\nexit 3\n")
    (tools / "qemu-img").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    with pytest.raises(Permanent, match=r"exit code 3\): cannot do that"):
        volumes.build(VolumeSpec("vol-a", "qcow2", 64 * MIB, image.sha256), watch, tag="op-2.1")
    assert watch.commands[0].exit_code == 3
    assert list((tmp_path / "volumes").iterdir()) == []


def test_the_path_of_a_volume_that_is_not_here_is_refused(volumes: VolumeFiles) -> None:
    assert volumes.present("vol-none") is None
    with pytest.raises(Permanent, match="vol-none"):
        volumes.path("vol-none")


def test_a_disk_that_goes_while_its_header_is_looked_at_has_no_size(tmp_path: Path) -> None:
    assert qcow2.virtual_size(tmp_path / "gone.qcow2") is None
