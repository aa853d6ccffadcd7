"""A program of its own: makes the mount and cgroup namespaces of a stack, and mounts inside what libvirt shall find."""

from __future__ import annotations

import grp
import os
import stat
import subprocess
import sys
from pathlib import Path

from deploy.laptop import cgroups
from deploy.laptop.namespaces import covers, directory
from deploy.laptop.stack import Stack

KVM = Path("/dev/kvm")
KVM_GROUP = "kvm"


INSIDE = "inside"


def make(stack: Stack) -> None:
    """Enters the stack's cgroup, whose place becomes the namespace's root, and goes on inside."""
    cgroups.join(stack)
    here = directory(stack)
    # Slave: what the host mounts or unmounts later is followed inside, never the other way round.
    pinning = ["unshare", f"--mount={here / 'mnt'}", f"--cgroup={here / 'cgroup'}", "--propagation", "slave", "--"]
    again = [sys.executable, "-m", "deploy.laptop.furnish_namespaces", stack.name, INSIDE]
    os.execvp(pinning[0], [*pinning, *again])  # noqa: S606 - this process becomes the tool


def furnish(stack: Stack) -> None:
    for place, source in covers(stack).items():
        subprocess.run(["mount", "--bind", source, place], check=True)
    _show_own_cgroups()
    if KVM.exists() and not _qemu_may_open_kvm():
        _cover_kvm(directory(stack))


def _show_own_cgroups() -> None:
    """The roots of these trees are the stack's. On a hybrid machine the version 2 tree is hidden, because LXC
    cannot handle it beside version 1."""
    trees = cgroups.hierarchies()
    if trees[0].version == 2:
        subprocess.run(["mount", "-t", "cgroup2", "cgroup2", trees[0].root], check=True)
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "cgroup", trees[0].root.parent], check=True)
    for tree in trees:
        tree.root.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "cgroup", "-o", tree.mount_options, "cgroup", tree.root], check=True)


def _qemu_may_open_kvm() -> bool:
    found = KVM.stat()
    if found.st_gid == grp.getgrnam(KVM_GROUP).gr_gid and found.st_mode & 0o060 == 0o060:
        return True
    return found.st_mode & 0o006 == 0o006


def _cover_kvm(scratch: Path) -> None:
    """The same device with the owners that udev would have given it, seen in here only.

    Where libvirt (root) can open it and QEMU (libvirt-qemu) cannot, libvirt throws its knowledge of QEMU away at
    every call and probes anew for seconds.
    """
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "vdc-kvm", scratch], check=True)
    node = scratch / "kvm"
    os.mknod(node, 0o660 | stat.S_IFCHR, KVM.stat().st_rdev)
    os.chown(node, 0, grp.getgrnam(KVM_GROUP).gr_gid)
    node.chmod(0o660)
    subprocess.run(["mount", "--bind", node, KVM], check=True)
    subprocess.run(["umount", scratch], check=True)


if __name__ == "__main__":
    of = Stack(sys.argv[1])
    furnish(of) if sys.argv[2:] == [INSIDE] else make(of)
