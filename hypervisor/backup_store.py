"""The `local` backup storage of a node: a directory of stored objects, brought in whole or not at all."""

from __future__ import annotations

from pathlib import Path

from hypervisor import receipts
from hypervisor.contract import Permanent, SourceSpec, Watch
from hypervisor.free_space import disk_fault
from hypervisor.sources import open_source, shown
from hypervisor.upload_inspector import Inspection, UploadInspector


class BackupStore:
    """Keeps objects as they are stored, under their keys; the files server serves the same directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def fetch(self, key: str, source: SourceSpec, watch: Watch, *, tag: str) -> Inspection:
        """Bring the bytes of `source` here under `key`, inspected on the way; not again when a receipt proves them.

        The caller holds the lock of the object. Leaves nothing half-made.
        """
        artefact = self._root / receipts.checked_name(key, "object key")
        if (kept := receipts.read(artefact)) is not None:
            return Inspection(kept.facts["sha256"], kept.size_bytes, kept.facts["raw_size_bytes"])
        for stale in receipts.stale_parts(artefact):
            stale.unlink(missing_ok=True)
        temporary = receipts.temporary_path(artefact, tag)
        inspector = UploadInspector(source.format, name=shown(source.url))
        try:
            self._copy(source, temporary, inspector, watch)
            inspection = inspector.finish()
            if source.sha256 and inspection.sha256 != source.sha256:
                raise Permanent(
                    f"{shown(source.url)} has the SHA-256 {inspection.sha256}, not {source.sha256} as was said",
                    advice="Check the address and the digest, then import again.",
                )
            facts: dict[str, str | int] = {
                "sha256": inspection.sha256,
                "raw_size_bytes": inspection.raw_size_bytes,
            }
            receipts.commit(temporary, artefact, operation=tag, facts=facts)
        except OSError as fault:
            raise disk_fault(fault, self._root, f"storing {key}") from fault
        finally:
            temporary.unlink(missing_ok=True)
        return inspection

    def _copy(self, source: SourceSpec, temporary: Path, inspector: UploadInspector, watch: Watch) -> None:
        stream = open_source(source)
        done = 0
        with temporary.open("wb") as file:
            for chunk in stream.chunks():
                inspector.feed(chunk)
                file.write(chunk)
                done += len(chunk)
                watch.progress(done, stream.announced_size_bytes, "bytes")
                watch.checkpoint()

    def remove(self, key: str) -> bool:
        """Take an object away, and what killed attempts at it left; False if it was not here."""
        artefact = self._root / receipts.checked_name(key, "object key")
        for stale in receipts.stale_parts(artefact):
            stale.unlink(missing_ok=True)
        was_there = artefact.exists()
        receipts.receipt_path(artefact).unlink(missing_ok=True)
        artefact.unlink(missing_ok=True)
        return was_there
