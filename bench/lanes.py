"""Whether a power-off waits behind copies: asked for on an idle node, and while two 4 GiB images are copied there.

In a stack of its own, an LXC guest is powered off by force and on again. Busy is a time in which two launches fetch two
different 4 GiB images from the backup storage, over loopback HTTP and as fast as they can, on the same node.
Run as `python -m bench.lanes`; exit code 0 only if the aim holds:
median(start while busy) - median(start while idle) ≤ 200 ms.
"""

from __future__ import annotations

import hashlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.deploy_image import DISK_BYTES, make_disk
from bench.report import BUILD, Claim, conclude
from bench.stack import door_of, import_image, operator_login, own_stack
from cli.client import Client
from deploy.guests.build import build_images
from deploy.guests.command import BuildError
from deploy.laptop import StackError
from deploy.laptop.stack import CLONE

STACK = "vdcbench-lanes"
ROUNDS = 24
BLOCK = 4  # rounds of one kind in a row
GIB = 1024**3
MIB = 1024**2
ROOM_BYTES = 20 * GIB
MEMORY_MIB = 64
PATIENCE_S = 180
LOOK_EVERY_S = 0.1
BEGUN_BYTES = 64 * MIB  # of each copy, before anything is measured beside it
AIM_MS = 200.0

METHOD = f"""\
Forced power-off of an LXC guest, from before the POST until its step has been claimed by the lane (its `started_at`).
{ROUNDS} rounds on an idle node and {ROUNDS} beside two copies of {DISK_BYTES // GIB} GiB images, in turns of {BLOCK}.
Copies: gzip over loopback HTTP, verified and fsynced, nothing slowed down. A round is busy if both of them still ran
when the power-off was over; at the end of a turn they are given up, and begun anew at the next."""


class Bench:
    """One guest to be powered off, and two images to be copied beside it."""

    def __init__(self, door: Client, content: dict[str, Any], work: Path) -> None:
        self.door = door
        self.store = Path(content["state_dir"]) / "node" / "images"
        guests = CLONE / "build" / "guests"
        lxc = next(facts for facts in build_images(guests, print)["images"] if facts["hypervisor"] == "lxc")
        self.guest = self._launch(import_image(door, guests, lxc)["id"])
        self._end_of(self.guest["operation"])
        self.big = [import_image(door, work, lxc | facts)["id"] for facts in big_images(work)]

    def rounds(self) -> dict[str, list[float]]:
        """Seconds until a power-off started, idle and busy."""
        found: dict[str, list[float]] = {"idle": [], "busy": []}
        self._start_s()  # to warm up
        self._power_on()
        while min(map(len, found.values())) < ROUNDS:
            found["idle"] += self._block(copies=[])
            with self._copies() as copies:
                found["busy"] += self._block(copies)
            told = {kind: f"{statistics.median(one) * 1000:.0f} ms" for kind, one in found.items() if one}
            print(f"{len(found['idle'])} idle, {len(found['busy'])} busy rounds: {told}", file=sys.stderr, flush=True)
        return {kind: one[:ROUNDS] for kind, one in found.items()}

    def _block(self, copies: list[dict[str, Any]]) -> list[float]:
        seconds: list[float] = []
        for _ in range(BLOCK):
            took_s = self._start_s()
            if all(self._copied_bytes(one) for one in copies):
                seconds.append(took_s)
            self._power_on()
        return seconds

    def _start_s(self) -> float:
        asked_at = time.time()
        operation = self.door.post(f"instances/{self.guest['id']}/poweroff", {"force": True})["operation"]
        (step,) = self._end_of(operation)["steps"]
        return datetime.fromisoformat(step["started_at"]).timestamp() - asked_at

    def _power_on(self) -> None:
        self._end_of(self.door.post(f"instances/{self.guest['id']}/poweron", {})["operation"])

    @contextmanager
    def _copies(self) -> Iterator[list[dict[str, Any]]]:
        """Two launches that are copying their images; given up at the end, and what they have copied is forgotten."""
        launches = [self._launch(image) for image in self.big]
        deadline = time.monotonic() + PATIENCE_S
        while not all(self._copied_bytes(one) > BEGUN_BYTES for one in launches):
            if time.monotonic() > deadline:
                raise SystemExit("Two copies did not run at the same time.")
            time.sleep(LOOK_EVERY_S)
        yield launches
        for one in launches:
            self._end_of(self.door.post(f"instances/{one['id']}/terminate", {})["operation"])
        for entry in self.store.glob("*.raw*"):
            if entry.stat().st_size == DISK_BYTES:
                entry.with_name(f"{entry.name}.receipt").unlink(missing_ok=True)
                entry.unlink()

    def _copied_bytes(self, launch: dict[str, Any]) -> int:
        """How far the copy of a launch is; 0 before it has begun and when it has ended."""
        fetch = self.door.get(f"operations/{launch['operation']['id']}")["steps"][0]
        return fetch["progress"]["done"] if fetch["state"] == "running" and fetch["progress"] else 0

    def _launch(self, image: str) -> dict[str, Any]:
        return self.door.post("instances", {"image": image, "memory_mib": MEMORY_MIB})

    def _end_of(self, operation: dict[str, Any]) -> dict[str, Any]:
        """The story of an operation that has to end well."""
        deadline = time.monotonic() + PATIENCE_S
        while (story := self.door.get(f"operations/{operation['id']}"))["ended_at"] is None:
            if time.monotonic() > deadline:
                raise SystemExit(f"{operation['id']} hangs: {story['waiting_for']}")
            time.sleep(LOOK_EVERY_S)
        if story["state"] != "done":
            raise SystemExit(f"{operation['id']} is {story['state']}: {story['error']}")
        return story


def big_images(work: Path) -> list[dict[str, Any]]:
    """Two packed 4 GiB disks: the same one with different times in its gzip header, so no store takes one for both."""
    print("making two packed 4 GiB disks (about a minute) ...", flush=True)
    disk, first = work / "disk.raw", work / "first.gz"
    make_disk(disk)
    with disk.open("rb") as source, first.open("wb") as target:
        subprocess.run([sys.executable, "-m", "isal.igzip", "-1", "-c"], stdin=source, stdout=target, check=True)
    disk.unlink()
    second = shutil.copyfile(first, work / "second.gz")
    with second.open("r+b") as file:
        file.seek(4)
        file.write(b"2222")
    return [{"file": path.name, **_stored(path), "name": path.stem, "format": "gz"} for path in (first, second)]


def _stored(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"stored_size_bytes": path.stat().st_size, "sha256": sha256}


def claims(found: dict[str, list[float]]) -> list[Claim]:
    idle_ms, busy_ms = (statistics.median(found[kind]) * 1000 for kind in ("idle", "busy"))
    return [
        Claim("lanes.idle", idle_ms, "ms"),
        Claim("lanes.idle_slowest", max(found["idle"]) * 1000, "ms"),
        Claim("lanes.busy", busy_ms, "ms"),
        Claim("lanes.busy_slowest", max(found["busy"]) * 1000, "ms"),
        Claim("lanes.difference", busy_ms - idle_ms, "ms", AIM_MS),
    ]


def main() -> int:
    BUILD.mkdir(parents=True, exist_ok=True)
    if min(shutil.disk_usage(place).free for place in (BUILD, "/var/lib")) < ROOM_BYTES:
        print(f"{BUILD} and /var/lib need {ROOM_BYTES // GIB} GiB of free disk.")
        return 2
    try:
        with (
            tempfile.TemporaryDirectory(dir=BUILD, prefix="lanes-") as work,
            own_stack(STACK) as content,
            door_of(operator_login(content, Path(work))) as door,
        ):
            found = Bench(door, content, Path(work)).rounds()
    except (StackError, BuildError) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    return 0 if conclude("lanes", METHOD, {"seconds": found}, claims(found)) else 1


if __name__ == "__main__":
    sys.exit(main())
