"""The cgroups of a stack: every process of it lies below `vdc-<name>`, so that the last one can be found.

    vdc-<name>/            the root that libvirt sees in its cgroup namespace
    ├── services/          supervisor and all that it runs, libvirtd included
    └── machine/ …         made by libvirt: one per guest

The same tree stands in every version 1 hierarchy, or once where the machine has version 2 only. On a hybrid
machine the version 2 tree has no controllers and is left alone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.laptop.mounts import mounts
from deploy.laptop.stack import Stack, StackError

CONTROLLERS = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"}
# What guests are limited by; the others of version 2 are left as the machine has them.
ENABLED_V2 = ("cpu", "cpuset", "io", "memory", "pids")
TERM_S = 15.0
KILL_S = 15.0


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup tree; `mount_options` mounts the same tree elsewhere."""

    root: Path
    version: int
    mount_options: str


def hierarchies() -> list[Hierarchy]:
    """Those that guests are limited by: version 1 where it has controllers, else version 2."""
    v1, v2, has_controllers = [], [], False
    for mount in mounts():
        if mount.kind == "cgroup":
            own = [word for word in mount.options if word in CONTROLLERS]
            named = [word for word in mount.options if word.startswith("name=")]
            has_controllers |= bool(own)
            v1.append(Hierarchy(mount.target, 1, ",".join(own or ["none", *named])))
        elif mount.kind == "cgroup2":
            v2.append(Hierarchy(mount.target, 2, ""))
    if has_controllers:
        return v1
    if v2:
        return v2[:1]
    raise StackError("No cgroup file system is mounted below /sys/fs/cgroup; guests cannot be limited without one.")


def tops(stack: Stack) -> list[Path]:
    return [hierarchy.root / f"vdc-{stack.name}" for hierarchy in hierarchies()]


def create(stack: Stack) -> None:
    """Makes the trees; may be called again."""
    for hierarchy, top in zip(hierarchies(), tops(stack), strict=True):
        if hierarchy.version == 2:
            _enable_controllers(hierarchy.root)
        for directory in (top, top / "services"):
            directory.mkdir(exist_ok=True)
            if hierarchy.version == 1 and (directory / "cpuset.cpus").exists():
                _inherit_cpuset(directory)


def enable_limits(stack: Stack) -> None:
    """Version 2 gives controllers to children only when no process sits in the parent itself."""
    for hierarchy, top in zip(hierarchies(), tops(stack), strict=True):
        if hierarchy.version == 2:
            _enable_controllers(top)


def join(stack: Stack, part: str = "") -> None:
    """Moves this process below `vdc-<name>/<part>`; the programs that it starts follow."""
    for top in tops(stack):
        (top / part / "cgroup.procs").write_text("0")


def processes(stack: Stack) -> set[int]:
    """The pids of everything that belongs to the stack, guests included."""
    return set().union(*(_pids_below(top) for top in tops(stack)))


def services(stack: Stack) -> set[int]:
    """Supervisor and what it runs, without the guests.

    In trees that libvirt does not use a guest stays in `services`, and so do some threads of its keeper in others.
    """
    guests = set().union(*(_pids_below(top / "machine") for top in tops(stack)))
    return processes(stack) - guests


def _pids_below(top: Path) -> set[int]:
    found: set[int] = set()
    for directory, _, _ in os.walk(top):
        try:
            found.update(map(int, (Path(directory) / "cgroup.procs").read_text().split()))
        except OSError:
            continue  # the guest's group went away, or holds threads only
    return found


def wake(stack: Stack) -> None:
    """Lets stopped programs go on: they cannot end in order before they hear about it."""
    for pid in services(stack):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def end(stack: Stack, listed: Callable[[Stack], set[int]]) -> None:
    """Ends what `processes` or `services` lists: asked first, then by force. Raises StackError if something stays."""
    left: set[int] = set()
    for number, patience_s in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, KILL_S)):
        for pid in listed(stack):
            _send(pid, number)
        if listed is processes:
            _thaw(stack)
        deadline = time.monotonic() + patience_s
        while (left := listed(stack)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not left:
            return
    raise StackError(f"These processes of the stack {stack.name!r} do not end: {', '.join(map(str, sorted(left)))}.")


def remove(stack: Stack) -> None:
    """Removes the trees; the kernel may take a moment after the last process."""
    deadline = time.monotonic() + KILL_S
    for top in tops(stack):
        while top.exists():
            try:
                for directory, _, _ in os.walk(top, topdown=False):
                    Path(directory).rmdir()
            except OSError as exc:
                if time.monotonic() > deadline:
                    raise StackError(f"{exc.filename} cannot be removed ({exc.strerror}).") from exc
                time.sleep(0.05)


def _send(pid: int, number: int) -> None:
    try:
        # To a PostgreSQL server SIGTERM means "when the last client has gone"; SIGINT means now, and orderly.
        if number == signal.SIGTERM and Path(f"/proc/{pid}/comm").read_text().strip() == "postgres":
            number = signal.SIGINT
        os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)  # a stopped process hears nothing else
    except (ProcessLookupError, FileNotFoundError):
        return


def _thaw(stack: Stack) -> None:
    """A frozen process does not even hear SIGKILL in version 1."""
    for top in tops(stack):
        for directory, _, _ in os.walk(top):
            for file, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                if (switch := Path(directory) / file).exists():
                    with suppress(OSError):  # its guest has just gone
                        switch.write_text(word)


def _inherit_cpuset(directory: Path) -> None:
    """An empty cpuset takes no process."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not (directory / file).read_text().strip():
            (directory / file).write_text((directory.parent / file).read_text().strip())


def _enable_controllers(directory: Path) -> None:
    offered = (directory / "cgroup.controllers").read_text().split()
    control = directory / "cgroup.subtree_control"
    for controller in ENABLED_V2:
        if controller in offered and controller not in control.read_text().split():
            try:
                control.write_text(f"+{controller}")
            except OSError as exc:
                raise StackError(
                    f"The cgroup controller {controller!r} cannot be handed on below {directory} ({exc.strerror})."
                ) from exc
