"""Writes a long stream into a sparse file: zero blocks become holes."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from hypervisor.disk_pace import DiskPace

BLOCK_BYTES = 64 * 1024
ZEROS = bytes(BLOCK_BYTES)


class SparseWriter:
    """Appends to a new file; a block of 64 KiB that is all zero is skipped. For one thread. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._pace = DiskPace(self._descriptor)
        self._offset = 0  # of the first byte that is neither written nor skipped; a multiple of the block size
        self._rest = b""  # what is left of an unfinished block
        self.written_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pace.close()
        os.close(self._descriptor)

    def write(self, data: bytes) -> None:
        start = 0
        if self._rest:
            start = min(BLOCK_BYTES - len(self._rest), len(data))
            self._rest += data[:start]
            if len(self._rest) < BLOCK_BYTES:
                return
            block, self._rest = self._rest, b""
            self._write_blocks(block, 0, BLOCK_BYTES)
        whole = start + (len(data) - start) // BLOCK_BYTES * BLOCK_BYTES
        self._write_blocks(data, start, whole)
        self._rest = data[whole:]

    def finish(self, *, mode: int) -> int:
        """Write the rest, give the file its length and mode, wait for the disk; returns the length in bytes."""
        size_bytes = self._offset + len(self._rest)
        if self._rest.count(0) != len(self._rest):
            self._write_at(self._rest, self._offset)
        os.ftruncate(self._descriptor, size_bytes)
        os.fchmod(self._descriptor, mode)
        self._pace.finish()
        return size_bytes

    def _write_blocks(self, data: bytes, start: int, end: int) -> None:
        """Write data[start:end], whole blocks all, in runs between the zero blocks.

        bytes.startswith(ZEROS, position) is a memcmp without a copy: 50 GB/s, where comparing
        memoryviews goes byte by byte and slices cost a copy each.
        """
        run = start
        for position in range(start, end, BLOCK_BYTES):
            if data.startswith(ZEROS, position):
                self._write_run(data, run, position)
                run = position + BLOCK_BYTES
                self._offset += BLOCK_BYTES
        self._write_run(data, run, end)

    def _write_run(self, data: bytes, start: int, end: int) -> None:
        if end > start:
            self._write_at(memoryview(data)[start:end], self._offset)
            self._offset += end - start

    def _write_at(self, data: bytes | memoryview, offset: int) -> None:
        view = memoryview(data)
        while view:
            count = os.pwrite(self._descriptor, view, offset)
            view = view[count:]
            offset += count
            self.written_bytes += count
            self._pace.wrote(count)
