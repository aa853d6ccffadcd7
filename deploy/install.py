"""What a fresh machine lacks: Debian packages, the user that QEMU runs as, and the virtual environment.

Needs nothing but Debian's python3. Everything that is there already is left alone, so a second run only looks.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deploy.stages import Stage, stage

CLONE = Path(__file__).resolve().parents[1]
VENV = CLONE / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed.json"
SHARED_DIR = Path("/run/vdc-machine")
ETC = Path("/etc")
POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = (
    "#!/bin/sh\n# Put here by the install step of vdc while it installs; remove it if you see it later.\nexit 101\n"
)

RUN_PACKAGES = (
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "libvirt-daemon-driver-lxc",
    "libvirt-clients",
    "qemu-system-x86",
    "qemu-utils",
    "seabios",
    "redis-server",
    "postgresql",
    "nftables",
    "dnsmasq-base",
    "iproute2",
    "util-linux",
    "mount",
    "kmod",
    "openssh-client",
)
# The small guests of the demo and the tests are built on the spot.
GUEST_PACKAGES = ("busybox-static", "syslinux", "syslinux-common", "mtools", "e2fsprogs", "fdisk", "cpio")
# libvirt-python and psycopg2 are compiled.
BUILD_PACKAGES = ("gcc", "libc6-dev", "pkg-config", "libvirt-dev", "libpq-dev")
DEBIAN_PYTHON_PACKAGES = ("python3-dev", "python3-venv")
DEV_PACKAGES = ("chromium", "curl", "prometheus", "pv")

QEMU_USER = "libvirt-qemu"
QEMU_ID = 64055  # the number that Debian keeps for it
LAST_LINES = 12
OLDEST_PYTHON = (3, 11)


class InstallError(Exception):
    """One sentence for the person at the terminal."""


def needed_packages(*, dev: bool) -> list[str]:
    packages = [*RUN_PACKAGES, *GUEST_PACKAGES, *BUILD_PACKAGES, *(DEV_PACKAGES if dev else ())]
    if Path(sys.base_prefix) == Path("/usr"):
        packages += DEBIAN_PYTHON_PACKAGES
    return packages


def missing_packages(needed: list[str]) -> list[str]:
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\\n", *needed],
        check=False,
        capture_output=True,
        text=True,
    ).stdout
    installed = {line.split()[1] for line in listed.splitlines() if line.startswith("installed ")}
    return [package for package in needed if package not in installed]


def run_logged(argv: list[str], log: Path, read: Callable[[str], None] | None = None, **environment: str) -> None:
    """Output goes to the log, line by line past `read`. Raises InstallError with its last lines."""
    with log.open("a") as file:
        file.write(f"$ {' '.join(argv)}\n")
        file.flush()
        with subprocess.Popen(
            argv,
            env={**os.environ, **environment},
            cwd=CLONE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stdout or ():
                file.write(line)
                if read:
                    read(line)
    if process.returncode != 0:
        tail = "\n".join(f"    {line}" for line in log.read_text().splitlines()[-LAST_LINES:])
        raise InstallError(f"`{' '.join(argv[:4])} …` failed (exit code {process.returncode}); see {log}:\n{tail}")


def apt(words: list[str], log: Path, progress: Stage) -> None:
    """One apt-get; it tells how far it is on the same pipe as its other words."""

    def read(line: str) -> None:
        if found := re.match(r"(dl|pm)status:[^:]*:([\d.]+):", line):
            share = float(found[2]) / 100
            progress.fraction = share / 2 if found[1] == "dl" else 0.5 + share / 2

    options = ["-q", "-y", "-o", "APT::Status-Fd=1", "-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=3"]
    run_logged(["apt-get", *options, *words], log, read, DEBIAN_FRONTEND="noninteractive", LC_ALL="C.UTF-8")


@contextmanager
def no_service_starts() -> Iterator[None]:
    """Packages start their services at installation; not while a policy forbids it. Somebody else's policy stays."""
    ours = not POLICY.exists() or POLICY.read_text(errors="replace") == POLICY_TEXT
    if ours:
        POLICY.write_text(POLICY_TEXT)
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)


def boot_links() -> set[Path]:
    """What starts services at boot, for systemd and for the older way."""
    return {*ETC.glob("systemd/system/*.wants/*"), *ETC.glob("rc[2345].d/S[0-9][0-9]*")}


@contextmanager
def nothing_new_at_boot(kept: Path) -> Iterator[None]:
    """What the block enables is disabled again. `kept` holds the list from before, also over an interruption."""
    before = {Path(link) for link in json.loads(kept.read_text())} if kept.exists() else boot_links()
    fresh = kept.with_suffix(".new")
    fresh.write_text(json.dumps(sorted(map(str, before))))
    fresh.replace(kept)
    try:
        yield
    finally:
        for script in sorted({link.name[3:] for link in boot_links() - before if link.parent.name.startswith("rc")}):
            subprocess.run(["update-rc.d", script, "disable"], check=True, capture_output=True)
        for link in boot_links() - before:
            link.unlink()
    kept.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """An flock on a file or directory; says so when it has to wait."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("  install        waiting for another one that is at work", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def install_packages(needed: list[str]) -> None:
    unfinished = SHARED_DIR / "before-install.json"
    if not missing_packages(needed) and not unfinished.exists():
        return
    SHARED_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
    log = SHARED_DIR / "apt.log"
    with ExitStack() as held:
        held.enter_context(locked(SHARED_DIR / "install.lock"))
        missing = missing_packages(needed)
        if not missing and not unfinished.exists():
            return
        held.enter_context(nothing_new_at_boot(unfinished))
        held.enter_context(no_service_starts())
        progress = held.enter_context(stage("packages", f"install {len(missing)} Debian packages"))
        log.write_text("")
        if subprocess.run(["dpkg", "--audit"], check=True, capture_output=True, text=True).stdout.strip():
            run_logged(["dpkg", "--configure", "-a"], log, DEBIAN_FRONTEND="noninteractive")
        if missing:
            apt(["update"], log, progress)
            progress.fraction = None
            apt(["install", "--no-install-recommends", *missing], log, progress)
        progress.fraction = None


def ensure_qemu_user() -> None:
    """As Debian's libvirt-daemon-system makes it: number 64055 where free, primary group kvm."""
    try:
        pwd.getpwnam(QEMU_USER)
    except KeyError:
        with stage("user", f"make the user {QEMU_USER}, without privileges, for QEMU"):
            _make_qemu_user()


def _make_qemu_user() -> None:
    for group, wanted in (("kvm", None), (QEMU_USER, QEMU_ID)):
        if not _is_known("group", group):
            number = ["--gid", str(wanted)] if wanted and not _is_known("group", str(wanted)) else []
            subprocess.run(["groupadd", "--system", *number, group], check=True)
    number = [] if _is_known("passwd", str(QEMU_ID)) else ["--uid", str(QEMU_ID)]
    names = ["--gid", "kvm", "--groups", QEMU_USER, "--home-dir", "/var/lib/libvirt", "--shell", "/usr/sbin/nologin"]
    made = subprocess.run(
        ["useradd", "--system", "--no-create-home", *number, *names, QEMU_USER],
        check=False,
        capture_output=True,
        text=True,
    )
    if made.returncode != 0 and not _is_known("passwd", QEMU_USER):  # a neighbour may have been quicker
        raise InstallError(f"The user {QEMU_USER} cannot be made: {made.stderr.strip()}")


def _is_known(database: str, key: str) -> bool:
    return subprocess.run(["getent", database, key], check=False, capture_output=True).returncode == 0


def wanted_stamp(requirements: list[Path]) -> dict[str, str]:
    """What the environment was made from; anything else means that it is made or completed anew."""
    return {
        "clone": str(CLONE),
        "python": str(PYTHON.resolve()),
        "entry point": hashlib.sha256((CLONE / "pyproject.toml").read_bytes()).hexdigest(),
        **{path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in requirements},
    }


def read_stamp() -> dict[str, str]:
    try:
        return json.loads(STAMP.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def install_environment(requirements: list[Path]) -> None:
    wanted = wanted_stamp(requirements)
    if wanted.items() <= read_stamp().items():
        return
    with locked(CLONE):
        stamp, fits = read_stamp(), _fits()
        if VENV.is_symlink() and not fits:
            raise InstallError(
                f"{VENV} is a link to {VENV.resolve()}, which was not made for this place and stays as it is. "
                f"Remove the link, and {VENV.name} is made here."
            )
        log = CLONE / "build" / "install.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text("")
        STAMP.unlink(missing_ok=True)  # until all of it is done nothing is promised
        if not fits:
            stamp = {}
            with stage("environment", f"make {VENV.name} with Python {sys.version.split()[0]}"):
                run_logged([sys.executable, "-m", "venv", "--clear", str(VENV)], log)
        for path in requirements:
            if stamp.get(path.name) != wanted[path.name]:
                _pip_install(path, log)
        if stamp.get("entry point") != wanted["entry point"]:
            with stage("entry point", "make the command vdc"):
                run_logged([*_pip(), "--no-deps", "--no-build-isolation", "--editable", "."], log)
        unfinished = STAMP.with_suffix(".new")
        unfinished.write_text(json.dumps(stamp | wanted_stamp(requirements), indent=2))
        unfinished.replace(STAMP)


def _fits() -> bool:
    """Whether the environment was made in this place and has pip for its Python. One that fits is completed and
    never emptied, whatever `python3` means to the caller: somebody may be working in it."""
    if not PYTHON.exists() or not (VENV / "pyvenv.cfg").read_text().rstrip().endswith(f" {VENV}"):
        return False
    probe = f"import pip, sys; sys.exit(sys.version_info < {OLDEST_PYTHON})"
    return subprocess.run([PYTHON, "-c", probe], check=False, capture_output=True).returncode == 0


def _pip() -> list[str]:
    options = ["--disable-pip-version-check", "--no-input", "--root-user-action=ignore", "--retries=5"]
    return [str(PYTHON), "-m", "pip", "install", *options]


def _pip_install(requirements: Path, log: Path) -> None:
    pins = max(1, len(re.findall(r"^[\w.-]+(\[.*\])?==", requirements.read_text(), re.MULTILINE)))
    seen = 0
    with stage("libraries", f"install {pins} pinned in {requirements.name}") as progress:

        def read(line: str) -> None:
            nonlocal seen
            seen += line.startswith(("Collecting ", "Requirement already satisfied"))
            progress.fraction = min(seen / pins, 1.0) * 0.8  # building and unpacking follow

        run_logged([*_pip(), "-r", str(requirements)], log, read)
        progress.fraction = None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m deploy.install", description=__doc__)
    parser.add_argument("--dev", action="store_true", help="also what the tests and checks need")
    chosen = parser.parse_args()
    requirements = [CLONE / "requirements.txt", *([CLONE / "requirements-dev.txt"] if chosen.dev else [])]
    try:
        if os.geteuid() != 0:
            raise InstallError("This installs Debian packages and makes bridges and namespaces: run it as root.")
        if sys.version_info < OLDEST_PYTHON:
            raise InstallError(f"python3 is {sys.version.split()[0]}; Python 3.11 or newer is needed.")
        if shutil.which("apt-get") is None:
            raise InstallError("There is no apt-get here: this runs on Debian 12 and its descendants.")
        install_packages(needed_packages(dev=chosen.dev))
        ensure_qemu_user()
        install_environment(requirements)
    except InstallError as exc:
        print(f"vdc: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("vdc: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
