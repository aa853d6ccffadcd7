"""Somebody else's libvirtd: the host's own as it were, with its guests in the usual cgroups.

Run as a program it furnishes the mount namespace that it is started in and becomes the daemon.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PLACES = {"etc": "/etc/libvirt", "run": "/run/libvirt", "lib": "/var/lib/libvirt", "log": "/var/log/libvirt"}
CACHE = ("/var/cache/vdc-machine/libvirt", "/var/cache/libvirt")
UNIFIED = Path("/sys/fs/cgroup/unified")
QEMU = 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nnamespaces = [ ]\nstdio_handler = "file"\n'
LIBVIRTD = 'auth_unix_rw = "none"\nunix_sock_rw_perms = "0700"\nlog_outputs = "3:stderr"\n'
PATIENCE_S = 60


class ForeignLibvirtd:
    """Starts at once, waits for its first answer; `stop` ends its guests and itself."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in PLACES:
            (directory / name).mkdir()
        (directory / "etc" / "qemu.conf").write_text(QEMU)
        (directory / "etc" / "libvirtd.conf").write_text(LIBVIRTD)
        with (directory / "libvirtd.log").open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "slave", "--", sys.executable, __file__, directory],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE_S
        while self.virsh("qemu", "version").returncode or self.virsh("lxc", "version").returncode:
            assert self.process.poll() is None, (directory / "libvirtd.log").read_text()
            assert time.monotonic() < deadline, "the foreign libvirtd does not answer"
            time.sleep(0.1)

    def virsh(self, driver: str, *words: str) -> subprocess.CompletedProcess[str]:
        uri = f"{driver}+unix:///system?socket={self.directory}/run/libvirt-sock"
        return subprocess.run(["virsh", "-q", "-c", uri, *words], check=False, capture_output=True, text=True)

    def guests(self) -> dict[str, str]:
        """Pid by name, of those called foreign-…; QEMU's is read from its pid file, a container's is its id."""
        found = {name: pid for pid, name, *_ in map(str.split, self.virsh("lxc", "list").stdout.splitlines()) if pid}
        for file in (self.directory / "run" / "qemu").glob("foreign-*.pid"):
            found[file.stem] = file.read_text().strip()
        return found

    def stop(self) -> None:
        for driver in ("lxc", "qemu"):
            for name in self.virsh(driver, "list", "--name").stdout.split():
                self.virsh(driver, "destroy", name)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)
        for top in Path("/sys/fs/cgroup").glob("*/machine"):
            with contextlib.suppress(OSError):  # somebody else's guests are in there
                top.rmdir()


def _become_libvirtd(directory: Path) -> None:
    for name, place in PLACES.items():
        Path(place).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", directory / name, place], check=True)
    subprocess.run(["mount", "--bind", *CACHE], check=True)
    if UNIFIED.is_mount():
        subprocess.run(["umount", UNIFIED], check=True)  # LXC cannot handle it beside version 1
    os.execvp("libvirtd", ["libvirtd", "--pid-file", f"{directory}/libvirtd.pid"])  # noqa: S606 - this process becomes it


if __name__ == "__main__":
    _become_libvirtd(Path(sys.argv[1]))
