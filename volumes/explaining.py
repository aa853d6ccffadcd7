"""What can be said of images and backup objects to whoever asks what is wrong."""

from __future__ import annotations

from core.units import size
from hypervisor.explaining import sights
from operations.explaining import Explainer, Facts
from volumes.models import BackupObject, Image


def _image_facts(image: Image) -> Facts:
    stored = image.backup_object
    return Facts(
        asked={
            "name": image.name,
            "for": f"{image.hypervisor} on {image.arch}",
            "stored as": f"{stored.uid} ({stored.state}), {size(stored.size_bytes)}",
            "unpacked": size(stored.raw_size_bytes),
            "sha256": stored.sha256 or "not known",
        },
        seen=sights(stored.storage.node),
        held=[_kept(stored)],
        verdict=f"{image.uid} is {image.state}; nothing is wrong with it.",
    )


def _object_facts(stored: BackupObject) -> Facts:
    return Facts(
        asked={
            "name": stored.name,
            "format": stored.format,
            "size": size(stored.size_bytes),
            "sha256": stored.sha256 or "not known",
        },
        seen=sights(stored.storage.node),
        held=[_kept(stored)],
        concerns=tuple(stored.images.values_list("uid", flat=True)),
        verdict=f"{stored.uid} is {stored.state}; nothing is wrong with it.",
    )


def _kept(stored: BackupObject) -> str:
    return f"{size(stored.size_bytes)} in the storage {stored.storage.uid} as {stored.uid}"


_STORED = ("storage__node__pulse", "account")

IMAGE = Explainer(
    "image",
    lambda: Image.objects.select_related("account", *(f"backup_object__{part}" for part in _STORED)),
    _image_facts,
)
BACKUP_OBJECT = Explainer("backup object", lambda: BackupObject.objects.select_related(*_STORED), _object_facts)
