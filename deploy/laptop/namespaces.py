"""The two pinned namespaces of a stack: mounts (libvirtd and the node's processes) and cgroups (libvirtd).

They are pinned to files, so that a restarted libvirtd sees the mounts and cgroups of the guests that kept running,
and nothing that is mounted inside shows up on the host. When the stack goes down they are unpinned, and the mounts
vanish with them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from deploy.laptop import cgroups, machine
from deploy.laptop.mounts import mounts, mounts_below
from deploy.laptop.stack import CLONE, Stack


def directory(stack: Stack) -> Path:
    return stack.run_dir / "ns"


def covers(stack: Stack) -> dict[Path, Path]:
    """What libvirt finds in its usual places, by place."""
    return {
        Path("/etc/libvirt"): stack.libvirt_dir / "etc",
        Path("/var/lib/libvirt"): stack.libvirt_dir / "lib",
        Path("/var/log/libvirt"): stack.logs_dir / "libvirt",
        Path("/var/cache/libvirt"): machine.LIBVIRT_CACHE,
        Path("/run/libvirt"): stack.run_dir / "libvirt",
    }


def are_ready(stack: Stack) -> bool:
    """Pinned and furnished; a file left from before a reboot is neither."""
    pinned = {mount.target for mount in mounts() if mount.kind == "nsfs"}
    here = directory(stack)
    return {here / "mnt", here / "cgroup"} <= pinned and (here / "furnished").exists()


def pin(stack: Stack) -> None:
    """Makes both namespaces unless they stand. The stack's cgroups must be there."""
    if are_ready(stack):
        return
    unpin(stack)
    for place, source in covers(stack).items():
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        source.mkdir(mode=0o755, parents=True, exist_ok=True)
    here = directory(stack)
    here.mkdir(mode=0o700)
    # A mount namespace can be pinned on a private mount only.
    subprocess.run(["mount", "--bind", here, here], check=True)
    subprocess.run(["mount", "--make-private", here], check=True)
    for name in ("mnt", "cgroup"):
        (here / name).touch()
    # The namespace's cgroup root is the group of the process that makes it, so that one stands in `vdc-<name>`.
    subprocess.run([sys.executable, "-m", "deploy.laptop.furnish_namespaces", stack.name], check=True, cwd=CLONE)
    cgroups.enable_limits(stack)
    (here / "furnished").touch()


def unpin(stack: Stack) -> None:
    """Lets both go. What was mounted inside vanishes with the last process in them."""
    here = directory(stack)
    for target in mounts_below(here):
        subprocess.run(["umount", target], check=True)
    if here.is_dir():
        for file in here.iterdir():
            file.unlink()
        here.rmdir()
