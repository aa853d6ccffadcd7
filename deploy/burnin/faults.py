"""Carries out the faults of a schedule on the processes, the broker, the disk and the downloads of one stack."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import celery
import psycopg2
import redis

from deploy.burnin.proxy import Proxy
from deploy.burnin.record import Record
from deploy.burnin.schedule import Fault
from deploy.burnin.volume_disk import VolumeDisk
from deploy.laptop import Stack
from deploy.laptop.supervision import Supervisor

WHOLE_TREES = ("postgres", "web", "files")  # these do their work in children
LIVES_WITHIN_S = 4.0
LOOK_EVERY_S = 0.05
RECENT_STEPS = "SELECT id, attempt, task, node, lane FROM operations_step ORDER BY queued_at DESC NULLS LAST LIMIT 40"
DOUBLE_BELLS = 30
CUT_BELOW_BYTES = 3 << 20


@dataclass(frozen=True)
class Happened:
    """A fault that was carried out; times are Unix times."""

    fault: Fault
    began_at: float
    ended_at: float


class Missed(Exception):
    """The target was not there to be hit."""


class Faults:
    """`stop` ends all that last. Afterwards nothing is frozen, full, cut or stalled any more."""

    def __init__(
        self, stack: Stack, content: dict[str, Any], proxy: Proxy, disk: VolumeDisk, stop: threading.Event
    ) -> None:
        self.happened: list[Happened] = []
        self.missed: list[tuple[Fault, str]] = []
        self.now: Counter[str] = Counter()
        self._stack = stack
        self._content = content
        self._proxy = proxy
        self._disk = disk
        self._stop = stop
        self._record = Record(content)
        self._kinds: dict[str, Callable[[Fault], None]] = {
            "kill": self._kill,
            "freeze": self._freeze,
            "flush": self._flush,
            "double": self._double,
            "fill": self._fill,
            "cut": self._cut,
            "stall": self._stall,
        }

    def perform(self, fault: Fault) -> None:
        """Carry it out, to its end."""
        began_at = time.time()
        self.now[str(fault)] += 1
        try:
            self._kinds[fault.kind](fault)
        except (Missed, OSError, psycopg2.Error, redis.RedisError) as missed:
            self.missed.append((fault, str(missed).strip()))
        else:
            self.happened.append(Happened(fault, began_at, time.time()))
        finally:
            self.now[str(fault)] -= 1
            self.now += Counter()

    # --- processes -------------------------------------------------------------------------------------------------

    def _kill(self, fault: Fault) -> None:
        os.kill(self._pid(fault), signal.SIGKILL)

    def _freeze(self, fault: Fault) -> None:
        with _stopped(self._pid(fault), whole_tree=fault.target in WHOLE_TREES):
            self._stop.wait(fault.lasts_s)

    def _pid(self, fault: Fault) -> int:
        """The process to hit. One that was hit a moment ago gets some time to come back."""
        program, _, part = fault.target.partition(" ")
        deadline = time.monotonic() + LIVES_WITHIN_S
        while not (pid := self._pid_now(program, part, fault.draw)):
            if time.monotonic() > deadline or self._stop.is_set():
                raise Missed(f"{fault.target} was down already")
            time.sleep(LOOK_EVERY_S)
        return pid

    def _pid_now(self, program: str, part: str, draw: float) -> int:
        try:
            pid = Supervisor(self._stack).infos()[program]["pid"]
            if program == "libvirtd":  # supervisor knows the reaper of the guests that stands before it
                pid = int((self._stack.run_dir / "libvirtd.pid").read_text())
            if pid and part:
                children = _children(pid)
                pid = children[int(draw * len(children))] if children else 0
        except (OSError, ValueError):
            return 0
        return pid if pid and Path(f"/proc/{pid}").exists() else 0

    # --- the broker ------------------------------------------------------------------------------------------------

    def _flush(self, fault: Fault) -> None:
        path = str(self._stack.run_dir / "redis" / "redis.sock")
        with contextlib.closing(redis.Redis(unix_socket_path=path, socket_timeout=2)) as line:
            line.flushall()

    def _double(self, fault: Fault) -> None:
        """Ring again, late and more than once, for steps that wait, run or have ended long ago."""
        steps = self._record.rows(RECENT_STEPS)
        dice = random.Random(fault.draw)  # noqa: S311
        app = celery.Celery("burnin", broker=self._content["redis_url"], fixups=[], set_as_current=False)
        app.conf.broker_transport_options = {"priority_steps": [0], "ack_emulation": False, "socket_timeout": 2}
        rung = 0
        for _ in range(DOUBLE_BELLS if steps else 0):
            step = dice.choice(steps)
            attempt = max(1, step["attempt"] - dice.choice((0, 0, 0, 1)))
            queue = f"node.{step['node']}.{step['lane']}" if step["node"] else "control"
            with contextlib.suppress(celery.exceptions.OperationalError, redis.RedisError, OSError):
                app.send_task(step["task"], args=[step["id"], attempt], queue=queue, retry=False)
                rung += 1
            self._stop.wait(fault.lasts_s / DOUBLE_BELLS)
        app.close()
        if not rung:
            raise Missed("no bell could be rung")

    # --- disk and downloads ----------------------------------------------------------------------------------------

    def _fill(self, fault: Fault) -> None:
        self._disk.fill(fault.draw)
        try:
            self._stop.wait(fault.lasts_s)
        finally:
            self._disk.relieve()

    def _cut(self, fault: Fault) -> None:
        self._proxy.cut_after_bytes = int(fault.draw * CUT_BELOW_BYTES)
        try:
            self._stop.wait(fault.lasts_s)
        finally:
            self._proxy.cut_after_bytes = None

    def _stall(self, fault: Fault) -> None:
        self._proxy.flowing.clear()
        try:
            self._stop.wait(fault.lasts_s)
        finally:
            self._proxy.flowing.set()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def _stopped(pid: int, *, whole_tree: bool) -> Iterator[None]:
    """These processes stand still inside of the block; the parent first, so that it makes no more children."""
    stopped, left = [], [pid]
    try:
        while left:
            current = left.pop()
            os.kill(current, signal.SIGSTOP)
            stopped.append(current)
            if whole_tree:
                left += _children(current)
        yield
    finally:
        for current in reversed(stopped):
            with contextlib.suppress(ProcessLookupError):
                os.kill(current, signal.SIGCONT)
