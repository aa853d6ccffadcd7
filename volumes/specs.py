"""Images and volumes in the words of a node."""

from __future__ import annotations

from hypervisor.contract import SourceSpec, VolumeSpec
from volumes.models import Image, Volume

# What the specs are made of. Their steps are the most frequent ones, and wide rows would cost more than the work.
SOURCE_COLUMNS = [
    *(f"backup_object__{name}" for name in ("uid", "format", "sha256", "size_bytes", "raw_size_bytes", "storage__uid")),
    *(f"backup_object__storage__node__{name}" for name in ("files_url", "files_token")),
]
VOLUME_COLUMNS = ["uid", "format", "size_bytes", "image__backup_object__sha256"]


def source_spec(image: Image) -> SourceSpec:
    """Where the image's bytes are, and what they must turn out to be."""
    stored = image.backup_object
    return SourceSpec(
        url=stored.storage.url_of(stored.uid),
        format=stored.format,
        sha256=stored.sha256,
        stored_size_bytes=stored.size_bytes,
        raw_size_bytes=stored.raw_size_bytes,
        bearer_token=stored.storage.node.files_token,
    )


def volume_spec(volume: Volume) -> VolumeSpec:
    """The file that the volume is on its node."""
    return VolumeSpec(
        uid=volume.uid,
        format=volume.format,
        size_bytes=volume.size_bytes,
        base_sha256=volume.image.backup_object.sha256 if volume.image else "",
    )
