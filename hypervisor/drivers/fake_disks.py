"""The disks of fake guests: promises without bytes, for trying out and for scale."""

from __future__ import annotations

from hypervisor.contract import SourceSpec, StoreEntry, VolumeFile, VolumeSpec, Watch


class FakeImages:
    """An image store in which every image is there already."""

    def fetch(self, source: SourceSpec, watch: Watch, *, tag: str) -> StoreEntry:
        watch.checkpoint()
        size = source.stored_size_bytes or 0
        watch.progress(size, size, "bytes")
        return StoreEntry(source.sha256, f"fake:{source.sha256}", size, source.raw_size_bytes or 0, was_present=True)


class FakeVolumes:
    """Volume files that exist by name."""

    def build(self, spec: VolumeSpec, watch: Watch, *, tag: str) -> VolumeFile:
        watch.checkpoint()
        return VolumeFile(spec.uid, f"fake:{spec.uid}.{spec.format}", spec.format, spec.size_bytes, was_present=False)
