"""For how long the database, or Redis, has been answering the sweep: only such time counts."""

from __future__ import annotations

import time

from operations import timing


class Answering:
    """For how long somebody has been answering, round after round.

    A round that comes too late (a mute server, a machine that slept) begins anew: leases may have run out meanwhile
    though their workers live.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._last = 0.0

    def interrupted(self) -> None:
        self._since = None

    def for_s(self) -> float:
        """Call it in each round, once the answer is there; 0: it begins anew."""
        now = time.monotonic()
        if self._since is None or now - self._last > timing.LONGEST_GAP_S:
            self._since = now
        self._last = now
        return now - self._since
