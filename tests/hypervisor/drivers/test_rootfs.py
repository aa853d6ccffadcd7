"""Which disk a container's root file system lies on, as the mounts and loop devices of the machine tell."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from hypervisor.drivers.libvirt import rootfs
from hypervisor.drivers.libvirt.loops import Loop


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file below a root that is shown at tmp_path/root."""
    disk = tmp_path / "vol-a.raw"
    disk.touch()
    here = SimpleNamespace(source="/dev/loop7", target=str(tmp_path / "root"))
    monkeypatch.setattr(rootfs, "mount_at", lambda target: here if str(target) == here.target else None)
    monkeypatch.setattr(rootfs.loops, "in_use", lambda: [Loop("/dev/loop7", str(disk), 0)])
    return disk


def test_a_shown_root_names_its_disk(disk: Path, tmp_path: Path) -> None:
    assert rootfs.disk_at(tmp_path / "root") == str(disk)
    assert rootfs.disk_at(tmp_path / "elsewhere") == ""


def test_a_disk_that_was_deleted_below_its_guest_is_none(disk: Path, tmp_path: Path) -> None:
    """Its guest runs on; whoever looks at all guests must not stumble over it."""
    disk.unlink()
    assert rootfs.disk_at(tmp_path / "root") == ""
