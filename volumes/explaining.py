"""What can be said of images and backup objects to whoever asks what is wrong."""

from __future__ import annotations

from core.units import size
from hypervisor.explaining import sights
from operations.explaining import Explainer, Facts
from volumes.models import BackupObject, Image
from volumes.states import ImageState


def _image_facts(image: Image) -> Facts:
    stored = image.backup_object
    return Facts(
        asked={
            "name": image.name,
            "for": f"{image.hypervisor} on {image.arch}",
            "stored as": f"{stored.uid} ({stored.state}), {_size(stored.size_bytes)}",
            "unpacked": _size(stored.raw_size_bytes),
            "sha256": stored.sha256 or "not known",
        },
        seen=sights(stored.storage.node),
        held=_kept(stored),
        verdict=f"{image.uid} is {image.state}; nothing is wrong with it.",
    )


def _object_facts(stored: BackupObject) -> Facts:
    return Facts(
        asked={
            "name": stored.name,
            "format": stored.format,
            "size": _size(stored.size_bytes),
            "sha256": stored.sha256 or "not known",
        },
        seen=sights(stored.storage.node),
        held=_kept(stored),
        concerns=tuple(stored.images.values_list("uid", flat=True)),
        verdict=f"{stored.uid} is {stored.state}; nothing is wrong with it.",
    )


def _kept(stored: BackupObject) -> list[str]:
    """Nothing before its bytes have come; what came whole stays with an object in error."""
    if stored.size_bytes is None or stored.state not in (ImageState.AVAILABLE, ImageState.ERROR):
        return []
    return [f"{size(stored.size_bytes)} in the storage {stored.storage.uid} as {stored.uid}"]


def _size(size_bytes: int | None) -> str:
    return "not known" if size_bytes is None else size(size_bytes)


_STORED = ("storage__node__pulse", "account")

IMAGE = Explainer(
    "image",
    lambda: Image.objects.select_related("account", *(f"backup_object__{part}" for part in _STORED)),
    _image_facts,
)
BACKUP_OBJECT = Explainer("backup object", lambda: BackupObject.objects.select_related(*_STORED), _object_facts)
