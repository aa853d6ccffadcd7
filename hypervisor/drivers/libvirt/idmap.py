"""A user namespace with the id range of one guest, and moving the owners of files into such a range."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hypervisor.contract import Permanent

ID_COUNT = 65536
NOBODY = 65534
# On the root directory of a file system whose owners were moved: to which range, and to which range work began.
SHIFTED, SHIFTING = "trusted.vdc.shifted", "trusted.vdc.shifting"
CAPABILITY = "security.capability"
_CAPS_V2, _CAPS_V3, _CAPS_MASK = 0x02000000, 0x03000000, 0xFF000000


@contextmanager
def user_namespace(uid_base: int) -> Iterator[int]:
    """The descriptor of a user namespace whose ids 0…65535 are uid_base…uid_base+65535 outside.

    A child lives just long enough to carry it: `cat` inside `unshare` answers when the namespace is there.
    """
    with subprocess.Popen(
        ["unshare", "--user", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as child:
        try:
            child.stdin.write(b"\n")
            if not child.stdout.read(1):
                said = child.stderr.read().decode(errors="replace").strip()
                raise Permanent(f"the kernel gives no user namespace: {said}", advice="LXC guests need CONFIG_USER_NS.")
            for name in ("uid_map", "gid_map"):
                Path(f"/proc/{child.pid}/{name}").write_text(f"0 {uid_base} {ID_COUNT}\n")
            fd = os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            child.stdin.close()
    try:
        yield fd
    finally:
        os.close(fd)


def shift_owners(root: Path, uid_base: int) -> None:
    """Give every file below `root` to the range at `uid_base`: for kernels that cannot map owners.

    Done once per disk: marks on the root directory say for which range. May be broken off and done again at any time.
    """
    done = _mark(root, SHIFTED)
    if done == uid_base:
        return
    ranges = {base for base in (done, _mark(root, SHIFTING), uid_base) if base is not None}
    os.setxattr(root, SHIFTING, str(uid_base).encode())
    for directory, names, files in os.walk(root):
        for name in [*names, *files]:
            _shift(os.path.join(directory, name), uid_base, ranges)  # noqa: PTH118 too many files for a Path each
    _shift(root, uid_base, ranges)
    os.setxattr(root, SHIFTED, str(uid_base).encode())


def is_shifted(root: Path) -> bool:
    """Whether the owners below `root` were moved on the disk itself, at least in part."""
    return _mark(root, SHIFTING) is not None


def moved(owner: int, uid_base: int, ranges: Collection[int]) -> int:
    """The id of the same owner in the range at `uid_base`, coming from 0…65535 or from one of `ranges`."""
    for base in ranges:
        if base <= owner < base + ID_COUNT:
            return owner - base + uid_base
    return owner + uid_base if owner < ID_COUNT else uid_base + NOBODY


def _mark(root: Path, name: str) -> int | None:
    try:
        return int(os.getxattr(root, name))
    except OSError:
        return None


def _shift(path: str | Path, uid_base: int, ranges: Collection[int]) -> None:
    seen = os.lstat(path)
    uid, gid = moved(seen.st_uid, uid_base, ranges), moved(seen.st_gid, uid_base, ranges)
    if (uid, gid) == (seen.st_uid, seen.st_gid):
        return
    capability = None
    if stat.S_ISREG(seen.st_mode):
        with suppress(OSError):
            capability = os.getxattr(path, CAPABILITY, follow_symlinks=False)
    os.lchown(path, uid, gid)
    # A change of owner takes set-uid bits and file capabilities away: both belong to the new owner now.
    if not stat.S_ISLNK(seen.st_mode):
        os.chmod(path, stat.S_IMODE(seen.st_mode))  # noqa: PTH101
    if capability is not None:
        os.setxattr(path, CAPABILITY, rooted_capability(capability, uid_base), follow_symlinks=False)


def rooted_capability(value: bytes, uid_base: int) -> bytes:
    """A file capability as it must be stored to count for the root of the range at `uid_base` (version 3)."""
    magic = struct.unpack_from("<I", value)[0]
    if magic & _CAPS_MASK not in (_CAPS_V2, _CAPS_V3):
        return value
    return struct.pack("<I", _CAPS_V3 | magic & ~_CAPS_MASK & 0xFFFFFFFF) + value[4:20] + struct.pack("<I", uid_base)
