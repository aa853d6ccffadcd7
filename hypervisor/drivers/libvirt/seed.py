"""The NoCloud seed that a guest reads at its first boot: as text, as a directory (LXC) and as an ISO image (KVM)."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from pathlib import Path

import pycdlib

from hypervisor.contract import SeedSpec

LABEL = "cidata"
_PLAIN_SCALAR = re.compile(r"[A-Za-z0-9/+_.@-][A-Za-z0-9/+_.@= -]*")


def meta_data(seed: SeedSpec) -> str:
    """The text of meta-data: YAML, one simple line per fact, so that a shell script can read it too."""
    lines = [f"instance-id: {_scalar(seed.instance_uid)}", f"local-hostname: {_scalar(seed.hostname)}"]
    if seed.authorized_keys:
        lines += ["public-keys:", *(f"  - {_scalar(key.strip())}" for key in seed.authorized_keys)]
    return "\n".join(lines) + "\n"


def files(seed: SeedSpec) -> dict[str, bytes]:
    """What the seed consists of; cloud-init ignores a seed without user-data, hence it is there even if empty."""
    return {"meta-data": meta_data(seed).encode(), "user-data": seed.user_data.encode()}


def write_directory(seed: SeedSpec, target: Path, *, owner: int) -> None:
    """Write the seed as a directory that only `owner` (the host id of the guest's root) can read."""
    fresh = _fresh(target)
    fresh.mkdir(mode=0o700)
    for name, content in files(seed).items():
        _write_private(fresh / name, content, owner)
    os.chown(fresh, owner, owner)
    if target.exists():
        shutil.rmtree(target)
    fresh.replace(target)


def write_iso(seed: SeedSpec, target: Path, *, owner: int) -> None:
    """Write the seed as an ISO 9660 image (Joliet and Rock Ridge) that only `owner` (QEMU's user id) can read."""
    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    for number, (name, content) in enumerate(files(seed).items()):
        image.add_fp(io.BytesIO(content), len(content), f"/SEED{number}.;1", rr_name=name, joliet_path=f"/{name}")
    written = io.BytesIO()
    image.write_fp(written)
    image.close()
    fresh = _fresh(target)
    _write_private(fresh, written.getvalue(), owner)
    fresh.replace(target)


def _fresh(target: Path) -> Path:
    """A place for a new version beside the old one, emptied of what a broken-off attempt left there."""
    fresh = target.with_name(f"{target.name}.new")
    if fresh.is_dir():
        shutil.rmtree(fresh)
    fresh.unlink(missing_ok=True)
    return fresh


def _write_private(path: Path, content: bytes, owner: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        os.fchown(fd, owner, owner)


def _scalar(text: str) -> str:
    """A YAML scalar: bare where that is safe, else quoted (JSON's quotes are YAML's)."""
    return text if _PLAIN_SCALAR.fullmatch(text) else json.dumps(text)
