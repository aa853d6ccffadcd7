"""Stage the root file system that both guests share: busybox, dropbear with its libraries, our files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from deploy.guests import recipe
from deploy.guests.command import BuildError, run

DIRECTORIES = {
    "usr/bin": 0o755,
    "usr/sbin": 0o755,
    "usr/lib": 0o755,
    "usr/lib64": 0o755,
    "dev": 0o755,
    "proc": 0o755,
    "sys": 0o755,
    "run": 0o755,
    "mnt": 0o755,
    "tmp": 0o1777,
    "root": 0o700,
    "root/.ssh": 0o700,
    "etc": 0o755,
    "etc/dropbear": 0o700,
    "var": 0o755,
    "var/log": 0o755,
    "var/www": 0o755,
    "var/lib": 0o755,
    "var/lib/vdc-guest": 0o700,
    "var/lib/cloud/seed/nocloud": 0o755,
}
LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/sbin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "var/run": "../run",
    "var/tmp": "../tmp",
}
# Applets that would be in the way: ours take their place, or they promise what is not there.
LEFT_OUT = {"init", "reboot", "rpm", "rpm2cpio"}
PROGRAMS = {
    "usr/bin/busybox": "busybox",
    "usr/bin/dbclient": "dropbear-bin",
    "usr/bin/dropbearkey": "dropbear-bin",
    "usr/sbin/dropbear": "dropbear-bin",
}
LOADER = "ld-linux-x86-64.so.2"


def stage_rootfs(packages: dict[str, Path], root: Path) -> None:
    """Lay out the tree at `root` (a new directory) from unpacked packages; the caller is root, who owns all of it."""
    root.mkdir()
    root.chmod(0o755)
    for name, mode in DIRECTORIES.items():
        (root / name).mkdir(parents=True)
        (root / name).chmod(mode)
    for name, target in LINKS.items():
        (root / name).symlink_to(target)
    _install_programs(packages, root)
    _install_own_files(root)


def _install_programs(packages: dict[str, Path], root: Path) -> None:
    loader = next(packages["libc6"].rglob(LOADER))
    folders = sorted({path.parent for tree in packages.values() for path in tree.rglob("*-linux-gnu/lib*.so.*")})
    # The packages' own loader says which library it takes from where, and runs what is not installed.
    load = [loader, "--inhibit-cache", "--library-path", ":".join(map(str, folders))]
    libraries = {}
    for name, package in PROGRAMS.items():
        program = next(packages[package].rglob(f"*bin/{Path(name).name}"))
        _install(program, root / name, 0o755)
        libraries.update(re.findall(r"^\s*([^/\s]+) => (\S+)", run([*load, "--list", program]), re.MULTILINE))
    for name, path in libraries.items():
        if Path(path).parent not in folders:
            raise BuildError(f"The library {name} is in none of the fetched packages")
        _install(Path(path), root / "usr/lib" / name, 0o755)
    _install(loader, root / "usr/lib64" / LOADER, 0o755)
    for applet in run([*load, root / "usr/bin/busybox", "--list"]).split():
        if applet not in LEFT_OUT:
            (root / "usr/bin" / applet).symlink_to("busybox")


def _install_own_files(root: Path) -> None:
    source = recipe.HERE / "rootfs"
    for path in sorted(source.rglob("*")):
        target = root / path.relative_to(source)
        if path.is_dir():
            target.mkdir(mode=0o755, exist_ok=True)
        else:
            is_script = path.read_bytes().startswith(b"#!")
            _install(path, target, 0o755 if is_script else 0o644)


def _install(source: Path, target: Path, mode: int) -> None:
    # Never through a link: a script of ours in the place of an applet must not overwrite busybox.
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)
