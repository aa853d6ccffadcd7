"""What it costs when Redis forgets everything while launches are under way.

In a stack of its own with fake nodes, 50 launches are asked for at once; in every second round a FLUSHALL throws their
bells away when most of them lie in Redis. Run as `python -m bench.flushall`; exit code 0 only if the aims hold:
every launch ends well, and the slowest one by at most 15 s later than without.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import redis

from bench.report import Claim, conclude
from bench.stack import FAKE_MEMORY_MIB, door_of, fake_image, operator_login, own_stack
from cli.client import Client
from cli.errors import Away
from deploy.laptop import StackError
from hypervisor.drivers.fake_world import FakeFaults, FakeWorld

STACK = "vdcbench-flush"
NODES = 10
LAUNCHES = 50
CLIENTS = 4
ROUNDS = 3
START_DELAY_S = 0.3  # a guest takes so long to start, so that bells pile up
BELLS = 10  # so many lie in Redis when it forgets them
PATIENCE_S = 300
AIM_S = 15.0

METHOD = f"""\
{LAUNCHES} launches at once on {NODES} fake nodes, whose guests take {START_DELAY_S} s to start. {ROUNDS} rounds with
a FLUSHALL when at least {BELLS} bells lie in Redis, and as many without, taking turns.
Each launch: from its request to its end, by the API's own times. Told is the slowest launch of a round: the medians,
and the worst one with a FLUSHALL against the median of those without."""


class Bench:
    """Launches on fake nodes, and a line to the Redis that carries their bells."""

    def __init__(self, content: dict[str, Any], door: Client, image: str) -> None:
        self.door = door
        self.image = image
        self.redis = redis.Redis(unix_socket_path=content["redis_url"].partition("://")[2])
        self.delay = FakeWorld(Path(content["state_dir"]) / "node" / "fake")
        self.delay.set_faults(FakeFaults(start_delay_s=START_DELAY_S))

    def round(self, *, flush: bool) -> dict[str, float]:
        """Seconds of the slowest launch, and how many bells were lost."""
        with ThreadPoolExecutor(CLIENTS) as clients:
            asked = list(clients.map(lambda number: self._ask(), range(LAUNCHES)))
        lost = self._flush() if flush else 0
        took_s = [self._took_s(one["operation"]["id"]) for one in asked]
        ended = [self.door.post(f"instances/{one['id']}/terminate", {})["operation"]["id"] for one in asked]
        for operation in ended:
            self._took_s(operation)
        return {"slowest_s": max(took_s), "bells_lost": lost}

    def _ask(self) -> dict[str, Any]:
        while True:
            try:
                return self.door.post("instances", {"image": self.image, "memory_mib": FAKE_MEMORY_MIB})
            except Away as busy:  # on a busy machine a lock may take longer than a request waits; nothing was made
                time.sleep(busy.retry_after_s or 1)

    def _flush(self) -> int:
        deadline = time.monotonic() + PATIENCE_S
        while (bells := self._bells()) < BELLS:
            if time.monotonic() > deadline:
                raise SystemExit(f"There were never {BELLS} bells in Redis.")
            time.sleep(0.01)
        self.redis.flushall()
        return bells

    def _bells(self) -> int:
        return sum(self.redis.llen(name) for name in self.redis.scan_iter("node.*", count=1000))

    def _took_s(self, operation: str) -> float:
        deadline = time.monotonic() + PATIENCE_S
        while (story := self.door.get(f"operations/{operation}"))["ended_at"] is None:
            if time.monotonic() > deadline:
                raise SystemExit(f"{operation} hangs: {story['waiting_for']}")
            time.sleep(0.2)
        attempts = [len(step["attempts"]) for step in story["steps"]]
        if story["state"] != "done" or set(attempts) != {1}:
            raise SystemExit(f"{operation} is {story['state']} after {attempts} attempts; see {json.dumps(story)}")
        return (datetime.fromisoformat(story["ended_at"]) - datetime.fromisoformat(story["created_at"])).total_seconds()


def rounds(bench: Bench) -> dict[str, list[dict[str, float]]]:
    """All rounds, with and without, taking turns."""
    bench.round(flush=False)  # to warm up
    found: dict[str, list[dict[str, float]]] = {"with": [], "without": []}
    for number in range(ROUNDS):
        for kind in ("with", "without") if number % 2 else ("without", "with"):
            found[kind].append(one := bench.round(flush=kind == "with"))
            print(f"round {number + 1} {kind}: {one}", file=sys.stderr, flush=True)
    return found


def claims(found: dict[str, list[dict[str, float]]]) -> list[Claim]:
    slowest_s = {kind: [one["slowest_s"] for one in rounds] for kind, rounds in found.items()}
    without_s = statistics.median(slowest_s["without"])
    return [
        Claim("flushall.bells_lost", statistics.median(one["bells_lost"] for one in found["with"]), "bells"),
        Claim("flushall.slowest_without", without_s, "s"),
        Claim("flushall.slowest_with", statistics.median(slowest_s["with"]), "s"),
        Claim("flushall.costs_at_worst", max(slowest_s["with"]) - without_s, "s", AIM_S),
    ]


def main() -> int:
    try:
        with (
            tempfile.TemporaryDirectory(prefix="vdcbench-") as work,
            own_stack(STACK, fake_nodes=NODES) as content,
            door_of(operator_login(content, Path(work))) as door,
        ):
            found = rounds(Bench(content, door, fake_image(door, Path(work))))
    except StackError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    return 0 if conclude("flushall", METHOD, {"rounds": found}, claims(found)) else 1


if __name__ == "__main__":
    sys.exit(main())
