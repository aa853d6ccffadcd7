"""Every process of a node and the control plane's workers, forked from one that has imported all, and forked again
when they die: `python -m tests.sweep.node_processes <failpoints directory>`.

They are the product's own workers, kept alive as supervisor would. Of this machine they use files only: the guests
are those of the fake driver, networks are files, while images, volumes and trash are the real ones.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "vdcproject.settings"
django.setup()

# Imported before any fork, as all the rest: a worker that is forked again serves at once.
import celery.bin.celery  # noqa: E402
import celery.concurrency.thread  # noqa: E402
import celery.worker.autoscale  # noqa: E402
import celery.worker.consumer  # noqa: E402, F401
import kombu.transport.redis  # noqa: E402, F401

from hypervisor import local  # noqa: E402 - needs the settings
from hypervisor.contract import NetworkSpec, Watch  # noqa: E402
from hypervisor.drivers.fake import FakeDriver  # noqa: E402
from hypervisor.drivers.settings import DriverSettings  # noqa: E402
from hypervisor.observer import Observer  # noqa: E402
from hypervisor.whole_files import write_whole  # noqa: E402
from operations import lane, recovery, sweep  # noqa: E402
from tests.sweep import added_verbs  # noqa: E402
from tests.sweep.failpoints import Failpoints  # noqa: E402

PR_SET_PDEATHSIG = 1


def use_files_only() -> None:
    """Guests and networks of this process are files; called in tests and workers alike."""

    @functools.cache
    def driver(hypervisor: str) -> FakeDriver:
        return FakeDriver(DriverSettings("tests", local.node_dir(), Path("/nowhere"), "tcg", "nobody"))

    def ensure_network(spec: NetworkSpec, watch: Watch | None) -> None:
        folder = local.node_dir() / "networks"
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("w") as lock:  # as the real ones: the observer tends them too
            fcntl.flock(lock, fcntl.LOCK_EX)
            write_whole(folder / spec.uid, "".join(f"{lease.mac} {lease.ipv4}\n" for lease in spec.leases))

    local.driver = driver
    local.ensure_network = ensure_network


def _serve(lane_name: str, of_node: bool) -> None:
    nodes = [local.this_node().uid if of_node else ""]
    recovery.take_over(nodes, lane_name)
    lane.serve(lane_name, nodes)


PROGRAMS: dict[str, Callable[[], None]] = {
    "observer": lambda: Observer(local.this_node(), threading.Event()).run(),
    "sweep": lambda: sweep.sweep(threading.Event()),
    "control": lambda: _serve("control", of_node=False),
    "ops": lambda: _serve("ops", of_node=True),
    "bulk": lambda: _serve("bulk", of_node=True),
}


def _fork(program: str) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == parent:
        PROGRAMS[program]()
    os._exit(0)


def main(failpoints: Path) -> None:
    use_files_only()
    added_verbs.register_all()
    Failpoints(failpoints).install()
    running = {_fork(program): program for program in PROGRAMS}
    while True:
        pid, _ = os.wait()
        program = running.pop(pid)
        running[_fork(program)] = program


if __name__ == "__main__":
    main(Path(sys.argv[1]))
