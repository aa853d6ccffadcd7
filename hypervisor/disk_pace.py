"""Keeps a long copy at the pace of the disk, so that its last fsync is short and guests keep their page cache."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor

# At most twice this much waits in memory for the disk.
SYNC_EVERY_BYTES = 64 * 1024**2


class DiskPace:
    """A second thread waits for the disk (fdatasync) behind the one that writes. Raises OSError."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="disk-pace")
        self._sync: Future[None] | None = None
        self._unsynced_bytes = 0

    def wrote(self, count: int) -> None:
        """Note that `count` bytes were written; waits if the disk is too far behind."""
        self._unsynced_bytes += count
        if self._unsynced_bytes >= SYNC_EVERY_BYTES:
            self._wait()
            self._unsynced_bytes = 0
            self._sync = self._waiter.submit(os.fdatasync, self._descriptor)

    def finish(self) -> None:
        """Return when everything is on the disk."""
        self._wait()
        os.fsync(self._descriptor)

    def close(self) -> None:
        """End the thread; the descriptor may be closed afterwards."""
        self._waiter.shutdown(wait=True)

    def _wait(self) -> None:
        if self._sync is not None:
            self._sync.result()
            self._sync = None
