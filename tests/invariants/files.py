"""What must be true of the files of a node at rest: each has an owner, each receipt is true, nothing is half-made."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from hypervisor import local, receipts
from hypervisor.models import Stray
from hypervisor.strays import GONE
from instances import adoption
from operations import register
from volumes.models import BackupObject, Volume
from volumes.states import ImageState, VolumeState

ENDED_STATES = ("terminated", "deleted", "quarantined")
UID = re.compile(r"[a-z]+-[a-z0-9]{8}")
TEMPORARY = re.compile(r"\.part$|\.new$|^\.|\.forgotten-")
PLUMBING = {"lock", "journal", ".lock"}
CHUNK_BYTES = 1 << 20


def violations() -> Iterator[str]:
    node_dir, storage_dir = local.node_dir(), local.storage_dir()
    for folder in (node_dir, storage_dir):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and TEMPORARY.search(path.name) and path.name not in PLUMBING:
                yield f"{path} is a temporary file that nobody removed"
    yield from _volumes(node_dir / "volumes")
    yield from _images(node_dir / "images", storage_dir)
    yield from _objects(storage_dir)
    yield from _trash(node_dir / "trash")
    yield from _of_subjects(node_dir)


def _artefacts(folder: Path) -> Iterator[Path]:
    """Every file with or without its receipt, and every receipt without its file; temporary files are told of above."""
    if not folder.exists():
        return
    names = {path.name.removesuffix(".receipt") for path in folder.iterdir() if path.is_file()}
    for name in sorted(names):
        if not TEMPORARY.search(name) and not name.endswith(".lock"):
            yield folder / name


def _volumes(folder: Path) -> Iterator[str]:
    rows = {f"{row.uid}.{row.format}": row for row in Volume.objects.select_related("image__backup_object")}
    of_strays = {disk["uid"] for stray in strays() for disk in adoption.disks_of(stray)}
    for path in _artefacts(folder):
        row = rows.get(path.name)
        if row is None and path.stem in of_strays:
            continue  # listed, and nobody's to touch but an operator's
        if row is None or row.state == VolumeState.DELETED:
            yield f"{path} is a disk of {'a deleted volume' if row else 'no volume'}"
        elif receipts.read(path) is None and row.state != VolumeState.ERROR:
            yield f"{path} has no good receipt, and its volume is {row.state}"
    for name, row in rows.items():
        whole = row.state in (VolumeState.ATTACHED, VolumeState.AVAILABLE) and row.node is not None
        if whole and row.node.uid == _this_node() and receipts.read(folder / name) is None:
            yield f"{row.uid} is {row.state}, and its disk is not whole on {row.node}"


def strays() -> list[Stray]:
    """What is listed as a stray of this node."""
    return list(Stray.objects.filter(node=local.this_node()).exclude(state__in=GONE))


def _this_node() -> str:
    return local.this_node().uid


def _images(folder: Path, storage_dir: Path) -> Iterator[str]:
    """An entry of the store holds what its stored bytes unpack to."""
    stored = {row.sha256: row for row in BackupObject.objects.exclude(sha256="")}
    for path in _artefacts(folder):
        receipt = receipts.read(path)
        if receipt is None:
            yield f"{path} has no good receipt"
            continue
        source = stored.get(path.stem)
        if source is None or not (storage_dir / source.uid).exists():
            continue  # its image may be gone from the storage: it is a cache
        if _digest(path) != _digest(storage_dir / source.uid, unpack=source.format == "gz"):
            yield f"{path} is not what {source.uid} unpacks to"


def _objects(storage_dir: Path) -> Iterator[str]:
    rows = {row.uid: row for row in BackupObject.objects.all()}
    for path in _artefacts(storage_dir):
        row, receipt = rows.get(path.name), receipts.read(path)
        if row is None or row.state in (ImageState.PENDING, *ENDED_STATES):
            yield f"{path} is stored, and {'its object is ' + row.state if row else 'nobody knows it'}"
        elif receipt is None:
            yield f"{path} has no good receipt"
        elif _digest(path) != receipt.facts["sha256"]:
            yield f"{path} has another digest than its receipt says"
    for row in rows.values():
        if row.state == ImageState.AVAILABLE and row.upload == "" and not (storage_dir / row.uid).exists():
            yield f"{row.uid} is available, and its bytes are not in the storage"


def _trash(folder: Path) -> Iterator[str]:
    if not folder.exists():
        return
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            continue
        try:
            entry = json.loads((path / "entry.json").read_bytes())
        except (OSError, ValueError):
            yield f"{path} lies in the trash without a readable entry"
            continue
        missing = [name for name in entry["files"] if not (path / name).exists()]
        if missing:
            yield f"{path} lacks {', '.join(missing)}"


def _of_subjects(node_dir: Path) -> Iterator[str]:
    """Whatever else lies there is named after a subject: one that has not ended."""
    told = {node_dir / part for part in ("volumes", "images", "trash", "cache", "networks")}
    alive = {
        uid
        for noun in register.nouns.values()
        for uid in noun.model.objects.exclude(state__in=ENDED_STATES).values_list("uid", flat=True)
    }
    alive |= {stray.name for stray in strays()}
    for path in sorted(node_dir.rglob("*")):
        if path.is_file() and path.name not in PLUMBING and not told & set(path.parents):
            owners = UID.findall(str(path.relative_to(node_dir)))
            if owners and not set(owners) & alive:
                yield f"{path} belongs to {owners[0]}, which is gone"


def _digest(path: Path, *, unpack: bool = False) -> str:
    with gzip.open(path) if unpack else path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
