"""Looks at an image file and streams it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from cli.errors import CliError, WrongUse

CHUNK_BYTES = 1024 * 1024

_GZIP_MAGIC = b"\x1f\x8b"
_NOT_TAKEN = {
    b"QFI\xfb": ("qcow2", "qemu-img convert -O raw {file} disk.raw"),
    b"KDMV": ("vmdk", "qemu-img convert -O raw {file} disk.raw"),
    b"\xfd7zX": ("xz", "xz -dk {file}"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d {file}"),
    b"BZh": ("bzip2", "bunzip2 -k {file}"),
    b"PK\x03\x04": ("zip", "unzip {file}"),
}


def open_image(path: Path) -> tuple[BinaryIO, int]:
    """The open file and its size in bytes. Raises WrongUse if it cannot be read or is empty."""
    try:
        file = path.open("rb")
        size_bytes = file.seek(0, 2)
        file.seek(0)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WrongUse(f"{path} cannot be read as an image: {reason}.") from None
    if size_bytes == 0:
        file.close()
        raise WrongUse(f"{path} is empty.")
    return file, size_bytes


def format_of_file(file: BinaryIO, path: Path) -> str:
    """ "raw" or "gz", by the first bytes. Raises WrongUse for formats that are not taken."""
    magic = file.read(8)
    file.seek(0)
    for start, (name, remedy) in _NOT_TAKEN.items():
        if magic.startswith(start):
            raise WrongUse(f"{path} is {name}; images are taken as raw or gz. First: {remedy.format(file=path)}")
    if magic.startswith(_GZIP_MAGIC):
        return "gz"
    if path.suffix == ".gz":
        raise WrongUse(f"{path} is called .gz and is not gzip. If it is a raw disk, say --format raw.")
    return "raw"


def format_of_url(url: str) -> str:
    """By the end of the path, for nothing is fetched here. Raises WrongUse if that says nothing."""
    suffix = Path(urlsplit(url).path).suffix
    if suffix in {".gz", ".raw", ".img"}:
        return "gz" if suffix == ".gz" else "raw"
    raise WrongUse(f"The name of {url} does not say its format: add --format raw or --format gz.")


def chunks(file: BinaryIO, path: Path, size_bytes: int, sent: Callable[[int], None]) -> Iterator[bytes]:
    """Exactly `size_bytes` of the file; `sent` is told the length of each piece once it has gone."""
    left = size_bytes
    while left:
        piece = file.read(min(CHUNK_BYTES, left))
        if not piece:
            raise CliError(f"{path} became shorter while it was read; nothing of it was imported.")
        left -= len(piece)
        yield piece
        sent(len(piece))
