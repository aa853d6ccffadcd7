"""A watch for work that nobody waits for."""

from __future__ import annotations

import time

from hypervisor.contract import CommandRecord


class QuietWatch:
    """Never stops the work, keeps nothing of what it says."""

    def checkpoint(self) -> None:
        pass

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def progress(self, done: int, total: int | None, unit: str) -> None:
        pass

    def ran(self, command: CommandRecord) -> None:
        pass
