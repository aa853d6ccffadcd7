"""The volume files of a node: copy-on-write clones of store entries and blank disks, each proved by its receipt.

<root>/<uid>.qcow2   an overlay on a store entry, or blank      (KVM)
<root>/<uid>.raw     a reflink or a sparse copy, or blank       (LXC)
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from hypervisor import commands, qcow2, receipts
from hypervisor.contract import Permanent, StoreEntry, VolumeFile, VolumeSpec, Watch
from hypervisor.disk_pace import DiskPace
from hypervisor.free_space import disk_fault, require_room
from hypervisor.image_store import ImageStore
from hypervisor.trash import VOLUME_FORMATS, Trash

log = structlog.get_logger()

SECTOR_BYTES = 512
COPY_BYTES = 8 * 1024**2
FICLONE = 0x40049409  # ioctl of linux/fs.h: share all blocks of another file
CANNOT_SHARE = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS}


class VolumeFiles:
    """Builds and finds volume files. The caller holds the lock of the volume.

    `owner_uid` and `owner_gid` become owners of qcow2 files, which QEMU must write; None leaves them to us.
    """

    def __init__(
        self, root: Path, store: ImageStore, trash: Trash, *, owner_uid: int | None = None, owner_gid: int | None = None
    ) -> None:
        self._root = root
        self._store = store
        self._trash = trash
        self._owner_uid = owner_uid
        self._owner_gid = owner_gid
        root.mkdir(parents=True, exist_ok=True, mode=0o711)

    def present(self, uid: str) -> VolumeFile | None:
        """The whole volume of that id; None if it is not here or nothing proves that it is whole."""
        for format in VOLUME_FORMATS:
            artefact = self._artefact(uid, format)
            receipt = receipts.read(artefact)
            if receipt is None:
                continue
            size_bytes = qcow2.virtual_size(artefact) if format == "qcow2" else receipt.size_bytes
            if size_bytes is not None:
                return VolumeFile(uid=uid, path=str(artefact), format=format, size_bytes=size_bytes, was_present=True)
        return None

    def all_present(self) -> list[VolumeFile]:
        """Every whole volume that is here."""
        names = {path.name.removesuffix(".receipt").rpartition(".")[0] for path in self._root.glob("*.receipt")}
        return [found for name in sorted(names) if receipts.SAFE_NAME.fullmatch(name) and (found := self.present(name))]

    def path(self, uid: str) -> Path:
        """Where the whole volume of that id is; Permanent if it is not here."""
        found = self.present(uid)
        if found is None:
            raise Permanent(
                f"The volume {uid} is not on this node, or not whole", advice="Look at the operation that built it."
            )
        return Path(found.path)

    def build(self, spec: VolumeSpec, watch: Watch, *, tag: str) -> VolumeFile:
        """Make sure that the volume is here. Raises the faults of contract.py and leaves nothing half-made.

        The size is rounded up to whole sectors of 512 bytes.
        """
        if spec.format not in VOLUME_FORMATS:
            raise Permanent(f"Volume {spec.uid} has the unknown format {spec.format!r}", advice='Use "qcow2" or "raw".')
        size_bytes = -(-spec.size_bytes // SECTOR_BYTES) * SECTOR_BYTES
        if size_bytes <= 0:
            raise Permanent(
                f"Volume {spec.uid} has a size of {spec.size_bytes} bytes", advice="Ask for a positive size."
            )
        if found := self.present(spec.uid):
            log.info("the volume is here already", volume=spec.uid, path=found.path)
            return _same(found, spec, size_bytes)
        base = self._base(spec, size_bytes)
        artefact = self._artefact(spec.uid, spec.format)
        temporary = receipts.temporary_path(artefact, tag)
        begun = time.monotonic()
        try:
            self._clear_the_place(spec.uid, tag)
            if spec.format == "qcow2":
                method = self._make_qcow2(temporary, base, size_bytes, watch)
            else:
                method = self._make_raw(temporary, base, size_bytes, watch)
            watch.checkpoint()
            facts: dict[str, str | int] = {"format": spec.format, "base_sha256": spec.base_sha256}
            receipts.commit(temporary, artefact, operation=tag, facts=facts, length_is_fixed=spec.format == "raw")
            log.info(
                "the volume is whole",
                volume=spec.uid,
                made_as=method,
                bytes=size_bytes,
                ms=round((time.monotonic() - begun) * 1000),
            )
        except OSError as fault:
            raise disk_fault(fault, self._root, f"building volume {spec.uid}") from fault
        finally:
            temporary.unlink(missing_ok=True)
        return VolumeFile(spec.uid, str(artefact), spec.format, size_bytes, was_present=False)

    def _artefact(self, uid: str, format: str) -> Path:
        return self._root / f"{receipts.checked_name(uid, 'volume id')}.{format}"

    def _base(self, spec: VolumeSpec, size_bytes: int) -> StoreEntry | None:
        if not spec.base_sha256:
            return None
        base = self._store.entry(spec.base_sha256)
        if base is None:
            raise Permanent(
                f"The image {spec.base_sha256} of volume {spec.uid} is not in the image store",
                advice="Retry the operation from the step that fetches it.",
            )
        if base.raw_size_bytes > size_bytes:
            raise Permanent(
                f"The image has {base.raw_size_bytes:,} bytes and does not fit "
                f"into volume {spec.uid} of {spec.size_bytes:,} bytes",
                advice=f"Ask for a volume of at least {base.raw_size_bytes:,} bytes.",
            )
        return base

    def _clear_the_place(self, uid: str, tag: str) -> None:
        for format in VOLUME_FORMATS:
            artefact = self._artefact(uid, format)
            for part in receipts.stale_parts(artefact):
                part.unlink(missing_ok=True)
            if artefact.exists():  # nothing proves that it is whole, and nothing that it is not
                self._trash.discard(uid, owner="", reason="found without a good receipt", operation=tag)

    def _make_qcow2(self, path: Path, base: StoreEntry | None, size_bytes: int, watch: Watch) -> str:
        """Returns how it was made, in words."""
        backing = ["-b", base.path, "-F", "raw"] if base else []
        options = ["-o", "compat=1.1,lazy_refcounts=off"]
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", *backing, *options, "--", str(path), str(size_bytes)]
        done = commands.run(argv, watch=watch)
        if done.returncode != 0:
            raise Permanent(
                f"qemu-img could not create {path.name} (exit code {done.returncode}): {done.stderr.strip()}",
                advice="Look at the file system of the volumes and at the image in the store.",
            )
        if qcow2.virtual_size(path) != size_bytes:
            raise Permanent(f"qemu-img made {path.name} with another size than the {size_bytes:,} bytes asked for")
        path.chmod(0o600)
        if self._owner_uid is not None or self._owner_gid is not None:
            os.chown(
                path,
                -1 if self._owner_uid is None else self._owner_uid,
                -1 if self._owner_gid is None else self._owner_gid,
            )
        return "an overlay on the image" if base else "a blank disk"

    def _make_raw(self, path: Path, base: StoreEntry | None, size_bytes: int, watch: Watch) -> str:
        """Returns how it was made, in words."""
        method = "a blank disk"
        target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if base is not None:
                source = os.open(base.path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    method = "blocks shared with the image"
                    if not _share_blocks(source, target):
                        method = "a sparse copy of the image"
                        self._copy_data(source, target, watch)
                finally:
                    os.close(source)
            os.ftruncate(target, size_bytes)
        finally:
            os.close(target)
        return method

    def _copy_data(self, source: int, target: int, watch: Watch) -> None:
        """Copy what is data, skip what is a hole."""
        pieces = list(_data_ranges(source))
        total_bytes = sum(length for _, length in pieces)
        require_room(self._root, total_bytes, "copying the image", self._empty_trash)
        pace = DiskPace(target)
        try:
            done_bytes = 0
            for offset, length in pieces:
                end = offset + length
                while offset < end:
                    watch.checkpoint()
                    count = _copy_piece(source, target, offset, min(COPY_BYTES, end - offset))
                    offset += count
                    done_bytes += count
                    pace.wrote(count)
                    watch.progress(done_bytes, total_bytes, "bytes")
            pace.finish()
        finally:
            pace.close()

    def _empty_trash(self, need_bytes: int) -> None:
        self._trash.empty(need_bytes=need_bytes, purpose="a volume")


def _same(found: VolumeFile, spec: VolumeSpec, size_bytes: int) -> VolumeFile:
    if (found.format, found.size_bytes) != (spec.format, size_bytes):
        raise Permanent(
            f"Volume {spec.uid} is here already as {found.format} of {found.size_bytes:,} bytes, "
            f"not as {spec.format} of {size_bytes:,} bytes",
            advice="Ask for another volume; a whole one is never overwritten.",
        )
    return found


def _share_blocks(source: int, target: int) -> bool:
    """Make the target share all blocks of the source, where the file system can (XFS, btrfs)."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as fault:
        if fault.errno in CANNOT_SHARE:
            return False
        raise
    return True


def _data_ranges(descriptor: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of each stretch of data in a sparse file."""
    end = 0
    while True:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as fault:
            if fault.errno == errno.ENXIO:  # nothing but holes from here on
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end - start


def _copy_piece(source: int, target: int, offset: int, length: int) -> int:
    """Copy some bytes inside the kernel, or through our memory where it cannot; returns how many."""
    try:
        count = os.copy_file_range(source, target, length, offset, offset)
    except OSError as fault:
        if fault.errno not in CANNOT_SHARE:
            raise
        count = os.pwrite(target, os.pread(source, min(length, 1024**2), offset), offset)
    if count == 0:
        raise OSError(errno.EIO, "the image in the store became shorter while it was copied")
    return count
