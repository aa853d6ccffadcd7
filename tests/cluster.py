"""A throw-away PostgreSQL and Redis for one run of the tests, on unix sockets in a directory of their own."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE_S = 30
USER = "vdc"


class Cluster:
    """Starts in about a second. Both servers end with `stop`, and also when the process of the tests dies."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="vdc-test-", dir="/tmp"))
        self.directory.chmod(0o711)
        self.owner = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        self.stack_file = self.directory / "stack.json"
        self._processes: list[tuple[subprocess.Popen, signal.Signals]] = []  # each with the signal that ends it at once

    def start(self) -> None:
        try:
            self._start_postgresql()
            self._start_redis()
            self.stack_file.write_text(json.dumps(self.stack(), indent=1))
            self.stack_file.chmod(0o600)
        except BaseException:
            self.stop()
            raise

    def stack(self, **changes: object) -> dict[str, object]:
        """What `make up` would write for these servers."""
        return {
            "name": "tests",
            "number": 0,
            "clone": str(Path(__file__).resolve().parent.parent),
            "start_id": "00000000-0000-4000-8000-000000000000",
            "port": 8080,
            "files_port": 8081,
            "files_token": secrets.token_urlsafe(32),
            "secret_key": secrets.token_urlsafe(64),
            "database": {
                "HOST": str(self.directory / "postgresql"),
                "PORT": "5432",
                "NAME": "vdc",
                "USER": USER,
                "PASSWORD": secrets.token_urlsafe(8),
            },
            "redis_url": f"redis+socket://{self.directory}/redis/redis.sock",
            "libvirt_socket": str(self.directory / "libvirt-sock"),
            "ipv4_network": "10.77.0.0/24",
            "bridge": "v0br0",
            "nft_table": "vdc_tests",
            "operator": {"username": "admin", "password": secrets.token_urlsafe(16)},
            "state_dir": str(self.directory / "state"),
            "run_dir": str(self.directory / "run"),
            "node_name": "tests",
        } | changes

    def stop(self) -> None:
        for process, ending in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.send_signal(ending)
        for process, _ in self._processes:
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def frozen_postgresql(self) -> Iterator[None]:
        """PostgreSQL and all its backends are mute inside of this block (SIGSTOP), and go on after it."""
        postmaster = self._processes[0][0].pid
        os.kill(postmaster, signal.SIGSTOP)  # first, so that it makes no more children
        backends = [int(pid) for pid in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()]
        try:
            for pid in backends:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in [*backends, postmaster]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def frozen_redis(self) -> Iterator[None]:
        """Redis is mute inside of this block."""
        redis = self._processes[1][0]
        redis.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            redis.send_signal(signal.SIGCONT)

    def _start_postgresql(self) -> None:
        data, sockets = self._home("data"), self._home("postgresql")
        self._run_as_owner(
            [
                _binary("initdb"),
                "-D",
                str(data),
                "-U",
                USER,
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "-N",
            ]
        )
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(sockets),
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "shared_buffers": "32MB",
            "autovacuum": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._spawn([_binary("postgres"), "-D", str(data), *options], "postgresql.log", ending=signal.SIGQUIT)
        self._await([_binary("pg_isready"), "-q", "-h", str(sockets), "-U", USER, "-d", "postgres"])

    def _start_redis(self) -> None:
        home = self._home("redis")
        socket = home / "redis.sock"
        settings = ["--port", "0", "--unixsocket", str(socket), "--dir", str(home), "--save", "", "--appendonly", "no"]
        self._spawn(["redis-server", *settings], "redis.log", ending=signal.SIGTERM)
        self._await(["redis-cli", "-s", str(socket), "ping"])

    def _home(self, name: str) -> Path:
        path = self.directory / name
        path.mkdir(mode=0o700)
        os.chown(path, self.owner.pw_uid, self.owner.pw_gid)
        return path

    def _as_owner(self, command: list[str], *options: str) -> list[str]:
        identity = ["--reuid", str(self.owner.pw_uid), "--regid", str(self.owner.pw_gid), "--clear-groups"]
        return ["setpriv", *options, *(identity if os.geteuid() == 0 else []), *command]

    def _run_as_owner(self, command: list[str]) -> None:
        done = subprocess.run(self._as_owner(command), capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}{done.stderr}"

    def _spawn(self, command: list[str], log: str, *, ending: signal.Signals) -> None:
        """A session of its own keeps Ctrl-C away; the signal of the parent's death ends it even after SIGKILL."""
        with (self.directory / log).open("wb") as output:
            process = subprocess.Popen(
                self._as_owner(command, "--pdeathsig", ending.name.removeprefix("SIG")),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
            )
        self._processes.append((process, ending))

    def _await(self, question: list[str]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while subprocess.run(question, capture_output=True).returncode != 0:
            assert self._processes[-1][0].poll() is None, self._last_words()
            assert time.monotonic() < deadline, self._last_words()
            time.sleep(0.02)

    def _last_words(self) -> str:
        return "\n".join(path.read_text() for path in self.directory.glob("*.log"))


def _binary(name: str) -> str:
    """Debian keeps PostgreSQL's server programs outside of PATH, one directory for each major version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    assert found, f"{name} is missing; install the Debian package postgresql"
    return str(found[-1])
