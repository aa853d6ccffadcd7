"""The stack's own libvirtd and virtlogd: their configuration, and whether they answer."""

from __future__ import annotations

import subprocess

from deploy.laptop.stack import Stack

DRIVERS = ("qemu", "lxc")
QEMU_USER = "libvirt-qemu"
ANSWER_S = 30

# Sockets are for root only: whoever may open one owns the machine.
LIBVIRTD = """\
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
unix_sock_admin_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:stderr"
"""
# Files are handed to QEMU by whoever makes them: libvirt changes no owner, so entries of the store stay root's.
QEMU = """\
user = "libvirt-qemu"
group = "kvm"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = [ ]
stdio_handler = "logd"
"""
LXC = """\
security_driver = "none"
"""
# A guest cannot fill the disk by printing.
VIRTLOGD = """\
max_size = 2097152
max_backups = 3
log_outputs = "3:stderr"
"""


def configure(stack: Stack) -> None:
    """Writes what the daemons read at their start; definitions of guests beside it are left alone."""
    etc = stack.libvirt_dir / "etc"
    etc.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name, content in (("libvirtd", LIBVIRTD), ("qemu", QEMU), ("lxc", LXC), ("virtlogd", VIRTLOGD)):
        (etc / f"{name}.conf").write_text(f"# Written by every `make up`; changes made here are lost.\n{content}")
    (stack.run_dir / "libvirt").mkdir(mode=0o755, exist_ok=True)


def virsh(stack: Stack, driver: str, *words: str, timeout_s: float = ANSWER_S) -> subprocess.CompletedProcess[str]:
    """One command to this stack's libvirtd; a mute daemon counts as one that refused."""
    argv = ["virsh", "-q", "-c", stack.uri(driver), *words]
    try:
        return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 1, "", f"libvirtd did not answer within {timeout_s:.0f} s")


def answers(stack: Stack) -> bool:
    return all(virsh(stack, driver, "version").returncode == 0 for driver in DRIVERS)


def running_guests(stack: Stack, driver: str) -> list[str]:
    """Names of the active domains; empty when nobody answers."""
    return virsh(stack, driver, "list", "--name").stdout.split()


def destroy_guests(stack: Stack) -> list[str]:
    """Ends by force what still runs. Returns the names."""
    ended = []
    for driver in DRIVERS:
        for name in running_guests(stack, driver):
            virsh(stack, driver, "destroy", name)
            ended.append(name)
    return ended
