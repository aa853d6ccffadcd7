"""Moving owners into the range of a guest."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from hypervisor.drivers.libvirt.idmap import moved, rooted_capability, shift_owners, user_namespace

BASE, OTHER = 1_000_000, 2_000_000


@pytest.mark.parametrize(
    ("owner", "expected"),
    [(0, BASE), (1000, BASE + 1000), (65535, BASE + 65535), (BASE + 7, BASE + 7), (OTHER + 7, BASE + 7)],
)
def test_an_owner_keeps_its_number_within_the_range(owner: int, expected: int) -> None:
    assert moved(owner, BASE, {BASE, OTHER}) == expected


def test_an_owner_from_nowhere_becomes_nobody() -> None:
    assert moved(5_000_000, BASE, {BASE}) == BASE + 65534


def test_owners_are_moved_once_and_set_uid_bits_stay(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("")
    tool.chmod(0o4755)
    (tmp_path / "link").symlink_to("/nowhere")
    shift_owners(tmp_path, BASE)
    shift_owners(tmp_path, BASE)
    assert tool.stat().st_uid == BASE
    assert tool.stat().st_mode & 0o7777 == 0o4755
    assert (tmp_path / "link").lstat().st_gid == BASE
    shift_owners(tmp_path, OTHER)
    assert tool.stat().st_uid == OTHER


def test_a_capability_counts_for_the_root_of_the_range() -> None:
    version_2 = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
    assert struct.unpack("<6I", rooted_capability(version_2, BASE)) == (0x03000001, 1 << 10, 0, 0, 0, BASE)


def test_a_user_namespace_has_the_range_and_leaves_no_process() -> None:
    with user_namespace(BASE) as fd:
        namespace = str(Path(f"/proc/self/fd/{fd}").readlink())
        assert namespace.startswith("user:[")
        assert namespace != str(Path("/proc/self/ns/user").readlink())
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert not [pid for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() in ("cat", "unshare")]
