"""Stored bytes in, raw disk bytes out, in bounded memory; refuses what is not what it claims to be."""

from __future__ import annotations

from collections.abc import Iterator

from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor, IsalError

from hypervisor.contract import Permanent

PIECE_BYTES = 1024**2
GZIP_MAGIC = b"\x1f\x8b"

# (offset, magic, name): formats that people send by mistake for a raw disk or for gzip.
KNOWN_MAGIC = (
    (0, GZIP_MAGIC, "gzip"),
    (0, b"\xfd7zXZ\x00", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"BZh", "bzip2"),
    (0, b"PK\x03\x04", "zip"),
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "VMDK"),
    (0, b"vhdxfile", "VHDX"),
    (257, b"ustar", "tar"),
)
LONGEST_LOOK_BYTES = 512


def recognise(head: bytes) -> str:
    """Name of the known format that the bytes begin like; "" for anything else, as a raw disk is."""
    for offset, magic, name in KNOWN_MAGIC:
        if head.startswith(magic, offset):
            return name
    return ""


class Unpacker:
    """Unpacks one object of format "raw" or "gz". All methods raise Permanent.

    `name` is what messages call the object; more than `raw_limit_bytes` of output stops it at once.
    """

    def __init__(self, format: str, name: str, *, raw_limit_bytes: int) -> None:
        if format not in ("raw", "gz"):
            raise Permanent(f"The format {format!r} of {name} is not known", advice='Known are "raw" and "gz".')
        self._format = format
        self._name = name
        self._raw_limit_bytes = raw_limit_bytes
        self._stored_head = b""
        self._raw_head = b""
        self._member: IgzipDecompressor | None = None
        self._members_done = 0
        self.stored_size_bytes = 0
        self.raw_size_bytes = 0

    def feed(self, stored: bytes) -> Iterator[bytes]:
        """The raw bytes that these stored bytes complete, in pieces of at most 1 MiB."""
        self.stored_size_bytes += len(stored)
        self._look_at_stored(stored)
        pieces = self._gunzip(stored) if self._format == "gz" else self._cut(stored)
        for piece in pieces:
            self.raw_size_bytes += len(piece)
            if self.raw_size_bytes > self._raw_limit_bytes:
                raise Permanent(
                    f"{self._name} unpacks to more than {self._raw_limit_bytes:,} bytes",
                    advice="Correct the recorded size, or import a smaller image.",
                )
            self._look_at_raw(piece)
            yield piece

    def finish(self) -> None:
        """Say that no more stored bytes will come; raises unless the object was whole."""
        if self.stored_size_bytes == 0:
            raise Permanent(f"{self._name} is empty", advice="Import a disk image.")
        if self._format == "gz":
            if self._stored_head and len(self._stored_head) < len(GZIP_MAGIC):
                raise self._not_gzip()
            if self._member is not None:
                raise Permanent(
                    f"{self._name} is truncated: its gzip data ends after {self.stored_size_bytes:,} bytes, "
                    "in the middle of a member",
                    advice="Upload the whole file again; `gzip -t FILE` shows whether a file is whole.",
                )
            if self.raw_size_bytes == 0:
                raise Permanent(f"{self._name} unpacks to nothing", advice="Import a disk image.")

    def _cut(self, stored: bytes) -> Iterator[bytes]:
        for start in range(0, len(stored), PIECE_BYTES):
            yield stored[start : start + PIECE_BYTES]

    def _gunzip(self, stored: bytes) -> Iterator[bytes]:
        while stored:
            if self._member is None:
                if self._members_done:
                    stored = stored.lstrip(b"\x00")  # padding after the last member, as tapes had it
                    if not stored:
                        return
                self._member = IgzipDecompressor(flag=DECOMP_GZIP)
            try:
                piece = self._member.decompress(stored, PIECE_BYTES)
                stored = b""
                if piece:
                    yield piece
                while not self._member.needs_input and not self._member.eof:
                    piece = self._member.decompress(b"", PIECE_BYTES)
                    if piece:
                        yield piece
            except IsalError as fault:
                raise self._damaged(fault) from fault
            if self._member.eof:
                stored = self._member.unused_data
                self._member = None
                self._members_done += 1

    def _damaged(self, fault: IsalError) -> Permanent:
        where = f"near stored byte {self.stored_size_bytes:,}"
        if self._members_done:
            return Permanent(
                f"{self._name} goes on {where}, after its gzip data has ended, with what is not gzip: {fault}",
                advice="Cut off what follows the gzip data, or compress the image again.",
            )
        return Permanent(
            f"The gzip data of {self._name} is damaged {where}: {fault}",
            advice="Upload the file again; `gzip -t FILE` shows whether a file is whole.",
        )

    def _look_at_stored(self, stored: bytes) -> None:
        if self._format != "gz" or len(self._stored_head) >= len(GZIP_MAGIC):
            return
        self._stored_head = (self._stored_head + stored[:LONGEST_LOOK_BYTES])[:LONGEST_LOOK_BYTES]
        if len(self._stored_head) >= len(GZIP_MAGIC) and not self._stored_head.startswith(GZIP_MAGIC):
            raise self._not_gzip()

    def _not_gzip(self) -> Permanent:
        found = recognise(self._stored_head)
        return Permanent(
            f"{self._name} is declared as gz, but its bytes are {found or 'not gzip'}",
            advice="Declare it as raw." if not found else "Compress the raw disk with gzip.",
        )

    def _look_at_raw(self, piece: bytes) -> None:
        if len(self._raw_head) >= LONGEST_LOOK_BYTES:
            return
        self._raw_head += piece[: LONGEST_LOOK_BYTES - len(self._raw_head)]
        found = recognise(self._raw_head)
        if not found:
            return
        if self._format == "raw":
            advice = "Declare it as gz." if found == "gzip" else "Convert it to a raw disk image first."
            raise Permanent(f"{self._name} is declared as raw, but its bytes are {found}", advice=advice)
        raise Permanent(
            f"{self._name} holds {found} inside its gzip data, not a raw disk",
            advice="Compress the raw disk image itself.",
        )
