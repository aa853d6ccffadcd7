"""The image store of a node: whole, verified raw images under the SHA-256 of their stored bytes.

source ─► [reader: read, SHA-256] ─pipe─► [unpacker: gunzip] ─pipe─► [step's thread: sparse write] ─► verify ─► receipt

<root>/<sha256>.raw            the image          <root>/<sha256>.raw.receipt   its proof
<root>/<sha256>.raw.<tag>.part an attempt at it   <root>/<sha256>.lock          who makes it now holds this lock
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from hypervisor import receipts
from hypervisor.contract import Permanent, SourceSpec, StoreEntry, Transient, Watch
from hypervisor.free_space import disk_fault, require_room
from hypervisor.pipe import Pipe
from hypervisor.sources import Source, open_source, shown
from hypervisor.sparse_writer import SparseWriter
from hypervisor.unpacker import Unpacker

log = structlog.get_logger()

# An image whose raw size nobody knows stops here: 2 TiB.
RAW_LIMIT_BYTES = 2 * 1024**4
# After each of these written, the disk must still have its reserve.
ROOM_STEP_BYTES = 16 * 1024**2

PIPE_DEPTH = 8
TICK_S = 0.2
SHA256_HEX = re.compile(r"[0-9a-f]{64}")


class ImageStore:
    """Keeps each image once, however many volumes are cloned from it.

    `reclaim(bytes)` is called to free space (empty the trash) when the file system lacks it.
    """

    def __init__(self, root: Path, *, reclaim: Callable[[int], object] | None = None) -> None:
        self._root = root
        self._reclaim = reclaim
        root.mkdir(parents=True, exist_ok=True, mode=0o711)

    def entry(self, sha256: str) -> StoreEntry | None:
        """The whole image whose stored bytes have this digest; None if it is not here."""
        artefact = self._artefact(sha256)
        receipt = receipts.read(artefact)
        if receipt is None or receipt.size_bytes is None:
            return None
        return StoreEntry(
            sha256=sha256,
            path=str(artefact),
            stored_size_bytes=int(receipt.facts["stored_size_bytes"]),
            raw_size_bytes=receipt.size_bytes,
            was_present=True,
        )

    def usage(self) -> tuple[int, int]:
        """How many whole images are here, and how many bytes of disk they take."""
        blocks = []
        for receipt in self._root.glob("*.raw.receipt"):
            with suppress(FileNotFoundError):  # it goes just now
                blocks.append(receipt.with_suffix("").stat().st_blocks)
        return len(blocks), sum(blocks) * 512

    def fetch(self, source: SourceSpec, watch: Watch, *, tag: str) -> StoreEntry:
        """Make sure that the image is here. Two callers for one digest: one fetches, the other waits and finds it.

        `tag` names operation and attempt. Raises Transient, Permanent, Cancelled or Fenced, leaving no temporary file.
        """
        if source.sha256 and (found := self.entry(source.sha256)):
            log.info("the image is in the store already", raw_bytes=found.raw_size_bytes)
            return found
        # Without a digest the URL is what two attempts have in common.
        key = source.sha256 or "url-" + hashlib.sha256(source.url.encode()).hexdigest()
        try:
            with self._alone(key, watch):
                if source.sha256 and (found := self.entry(source.sha256)):
                    log.info("another step has fetched the image meanwhile", raw_bytes=found.raw_size_bytes)
                    return found
                return self._fetch_alone(source, key, watch, tag)
        except OSError as fault:
            raise disk_fault(fault, self._root, f"fetching {shown(source.url)}") from fault

    def remove_abandoned_parts(self) -> list[str]:
        """Remove what killed attempts left behind, where nobody holds the lock; returns the names removed."""
        removed = []
        for part in sorted(self._root.glob("*.raw.*.part")):
            with self._lock_file(part.name.partition(".raw.")[0]) as descriptor:
                if _try_lock(descriptor) and part.exists():
                    part.unlink()
                    removed.append(part.name)
        return removed

    def _artefact(self, sha256: str) -> Path:
        if not SHA256_HEX.fullmatch(sha256):
            raise Permanent(
                f"{sha256[:80]!r} is not a SHA-256 digest", advice="A digest has 64 lower-case hexadecimal digits."
            )
        return self._root / f"{sha256}.raw"

    def _fetch_alone(self, source: SourceSpec, key: str, watch: Watch, tag: str) -> StoreEntry:
        temporary = receipts.temporary_path(self._root / f"{key}.raw", tag)
        for part in receipts.stale_parts(self._root / f"{key}.raw"):
            part.unlink(missing_ok=True)
        need_bytes = source.raw_size_bytes if source.raw_size_bytes is not None else source.stored_size_bytes or 0
        self._require_room(source, need_bytes)
        log.info("fetching the image", source=shown(source.url), format=source.format, bytes=source.stored_size_bytes)
        begun = time.monotonic()
        transfer = _Transfer(source, lambda: self._require_room(source, 0))
        try:
            sha256, stored_size_bytes, raw_size_bytes = transfer.run(temporary, watch)
            log.info(
                "the image was copied",
                stored_bytes=stored_size_bytes,
                raw_bytes=raw_size_bytes,
                sha256=sha256,
                ms=round((time.monotonic() - begun) * 1000),
            )
            _verify(source, sha256, stored_size_bytes, raw_size_bytes)
            log.info("digest and sizes are as recorded" if source.sha256 else "there is no digest to compare with")
            watch.checkpoint()
            if not source.sha256:
                with self._alone(sha256, watch):
                    return self.entry(sha256) or self._keep(temporary, sha256, stored_size_bytes, tag)
            return self._keep(temporary, sha256, stored_size_bytes, tag)
        finally:
            temporary.unlink(missing_ok=True)

    def _require_room(self, source: SourceSpec, need_bytes: int) -> None:
        require_room(self._root, need_bytes, f"fetching {shown(source.url)}", self._reclaim)

    def _keep(self, temporary: Path, sha256: str, stored_size_bytes: int, tag: str) -> StoreEntry:
        artefact = self._artefact(sha256)
        facts: dict[str, str | int] = {"sha256": sha256, "stored_size_bytes": stored_size_bytes}
        receipts.commit(temporary, artefact, operation=tag, facts=facts)
        return StoreEntry(
            sha256=sha256,
            path=str(artefact),
            stored_size_bytes=stored_size_bytes,
            raw_size_bytes=artefact.stat().st_size,
            was_present=False,
        )

    @contextmanager
    def _alone(self, key: str, watch: Watch) -> Iterator[None]:
        """Hold the lock of one image; waiting for it is told as progress in seconds."""
        with self._lock_file(key) as descriptor:
            waited_s = 0.0
            while not _try_lock(descriptor):
                if waited_s == 0:
                    log.info("somebody else makes this image; waiting")
                watch.pause(TICK_S)
                waited_s += TICK_S
                watch.progress(int(waited_s), None, "seconds")
            yield

    @contextmanager
    def _lock_file(self, key: str) -> Iterator[int]:
        # The file stays: to remove it would let two holders lock two files of one name.
        descriptor = os.open(self._root / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


class _Transfer:
    """One pass over a source: digest, unpacking and sparse writing at the same time, in bounded memory.

    `require_room` is called now and then: a disk that others fill too, or an image of unknown size, must not end
    with the database having no room.
    """

    def __init__(self, spec: SourceSpec, require_room: Callable[[], None]) -> None:
        self._spec = spec
        self._require_room = require_room
        self._source: Source = open_source(spec)
        self._digest = hashlib.sha256()
        self._received_bytes = 0
        limit = RAW_LIMIT_BYTES if spec.raw_size_bytes is None else spec.raw_size_bytes
        self._unpacker = Unpacker(spec.format, shown(spec.url), raw_limit_bytes=limit)

    def run(self, path: Path, watch: Watch) -> tuple[str, int, int]:
        """Write the raw image to a new file; returns digest and size of the stored bytes, and the raw size."""
        stored: Pipe[bytes] = Pipe(PIPE_DEPTH)
        raw: Pipe[bytes] = Pipe(PIPE_DEPTH)
        with SparseWriter(path) as writer:
            # The reader is not waited for: it may be in a resolver or a connect that no one can interrupt.
            stored.fill_from(self._read(), "image-reader")
            unpacking = raw.fill_from(self._unpack(stored), "image-unpacker")
            try:
                self._write(raw, writer, watch)
            finally:
                raw.abandon()
                stored.abandon()
                self._source.abort()
                unpacking.join()
            raw_size_bytes = writer.finish(mode=0o644)
        return self._digest.hexdigest(), self._received_bytes, raw_size_bytes

    def _write(self, raw: Pipe[bytes], writer: SparseWriter, watch: Watch) -> None:
        told = -1
        room_until_bytes = ROOM_STEP_BYTES
        for piece in raw.items(TICK_S):
            watch.checkpoint()
            if piece is not None:
                writer.write(piece)
            if writer.written_bytes >= room_until_bytes:
                self._require_room()
                room_until_bytes += ROOM_STEP_BYTES
            # Silence is not progress: only bytes are.
            moved = self._received_bytes + writer.written_bytes
            if moved != told:
                told = moved
                watch.progress(self._received_bytes, self._total_bytes(), "bytes")

    def _total_bytes(self) -> int | None:
        if self._spec.stored_size_bytes is not None:
            return self._spec.stored_size_bytes
        return self._source.announced_size_bytes

    def _read(self) -> Iterator[bytes]:
        expected = self._spec.stored_size_bytes
        name = shown(self._spec.url)
        for chunk in self._source.chunks():
            announced = self._source.announced_size_bytes
            if expected is not None and announced not in (None, expected):
                raise _wrong_size(name, f"offers {announced:,}", expected)
            self._digest.update(chunk)
            self._received_bytes += len(chunk)
            if expected is not None and self._received_bytes > expected:
                raise _wrong_size(name, "sends more", expected)
            yield chunk
        if expected is not None and self._received_bytes < expected:
            if self._source.announced_size_bytes is not None:
                raise _wrong_size(name, f"has {self._received_bytes:,}", expected)
            # A connection that announced no length and just ends may have broken.
            raise Transient(
                f"{name} ended after {self._received_bytes:,} of {expected:,} bytes",
                advice="Retry; if it ends there again, look at the object on the server.",
            )

    def _unpack(self, stored: Pipe[bytes]) -> Iterator[bytes]:
        for chunk in stored.items():
            yield from self._unpacker.feed(chunk)
        self._unpacker.finish()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wrong_size(name: str, what: str, expected: int) -> Permanent:
    return Permanent(
        f"{name} {what} bytes, but the record says {expected:,}",
        advice="The object was replaced or the record is wrong: import the image again.",
    )


def _verify(source: SourceSpec, sha256: str, stored_size_bytes: int, raw_size_bytes: int) -> None:
    name = shown(source.url)
    if source.sha256 and sha256 != source.sha256:
        raise Permanent(
            f"The {stored_size_bytes:,} bytes of {name} have the SHA-256 {sha256}, but the record says {source.sha256}",
            advice="The object was changed or the checksum is wrong: compare with `sha256sum FILE`, import again.",
        )
    if source.raw_size_bytes is not None and raw_size_bytes != source.raw_size_bytes:
        raise Permanent(
            f"{name} unpacks to {raw_size_bytes:,} bytes, but the record says {source.raw_size_bytes:,}",
            advice="The record is wrong: import the image again.",
        )
