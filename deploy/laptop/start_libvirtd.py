"""What supervisor runs as `libvirtd`: the daemon inside the stack's pinned namespaces, and a reaper for its guests.

libvirt's knowledge of QEMU is cached under the identity of the processor on which it starts. Begun on another core
than last time it probes anew, for eight seconds. So it starts on one core and is let go once it answers.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from deploy.laptop import libvirt, reaper
from deploy.laptop.namespaces import directory
from deploy.laptop.stack import Stack

LET_GO_AFTER_S = 60.0


def become(stack: Stack) -> None:
    """Turn this process into the daemon."""
    here = directory(stack)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    _let_go_later(stack, os.getpid(), allowed)
    # No bus: otherwise systemd's machined would put our guests into cgroups that libvirt cannot see in here.
    os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={stack.run_dir}/no-bus"
    entered = ["nsenter", f"--mount={here / 'mnt'}", f"--cgroup={here / 'cgroup'}", "--wdns=/", "--"]
    os.execvp(entered[0], [*entered, "libvirtd", "--pid-file", f"{stack.run_dir}/libvirtd.pid"])  # noqa: S606 - becomes it


def main() -> int:
    stack = Stack(os.environ["VDC_NAME"])
    return reaper.run(lambda: become(stack))


def _let_go_later(stack: Stack, daemon: int, allowed: set[int]) -> None:
    """Forks twice, so that the daemon gets no child that it does not know."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    if os.fork():
        os._exit(0)
    os.sched_setaffinity(0, allowed)
    deadline = time.monotonic() + LET_GO_AFTER_S
    while time.monotonic() < deadline and not libvirt.answers(stack):
        time.sleep(0.2)
    for task in Path(f"/proc/{daemon}/task").glob("*"):
        try:
            os.sched_setaffinity(int(task.name), allowed)
        except ProcessLookupError:
            continue
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
