"""The one supervisord of a stack: starting it, and asking it to start, stop and tell."""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
import xmlrpc.client
from pathlib import Path
from typing import Any

from supervisor.compat import httplib
from supervisor.xmlrpc import Faults, SupervisorTransport, UnixStreamHTTPConnection

from deploy.laptop import postgres
from deploy.laptop.stack import CLONE, Stack, StackError

PROCESSES = Path(__file__).with_name("processes.conf")
INFRASTRUCTURE = ("postgres", "redis", "virtlogd", "libvirtd")
CONTROL_PLANE = ("control", "sweep", "files", "web")
NODE = ("node-observer", "node-ops", "node-bulk")
FLEET = ("fleet-observer", "fleet-ops", "fleet-bulk")

ANSWER_S = 15.0
START_S = 15.0
STOP_S = 30.0
# For its first second a program is "starting" to supervisor, whatever it does already.
COMING = {"STARTING", "RUNNING"}
DOWN = {"STOPPED", "EXITED", "FATAL"}


def programs_of(content: dict[str, Any]) -> tuple[str, ...]:
    """All programs of a stack; a fleet only where the stack file asks for fake nodes."""
    return (*INFRASTRUCTURE, *CONTROL_PLANE, *NODE, *(FLEET if content.get("fake_nodes") else ()))


class _Connection(UnixStreamHTTPConnection):
    """A mute supervisord counts as a dead one."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(ANSWER_S)


class _Transport(SupervisorTransport):
    def __init__(self, socket_path: Path) -> None:
        super().__init__(serverurl=f"unix://{socket_path}")
        self._socket_path = str(socket_path)
        self._get_connection = self._connect

    def _connect(self) -> httplib.HTTPConnection:
        connection = _Connection("localhost")
        connection.socketfile = self._socket_path
        return connection


class Supervisor:
    """What `processes.conf` describes, for one stack."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def _call(self, method: str, *arguments: Any) -> Any:
        with xmlrpc.client.ServerProxy("http://localhost", transport=_Transport(self.stack.supervisor_socket)) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    def is_alive(self) -> bool:
        try:
            return self._call("getState")["statename"] == "RUNNING"
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return False

    def start(self, content: dict[str, Any]) -> None:
        """Starts the daemon in the stack's cgroup; it starts no program by itself."""
        environment = {
            **self.stack.environment(),
            "VDC_CLONE": str(CLONE),
            "VDC_PYTHON": sys.executable,
            "VDC_STATE_DIR": str(self.stack.state_dir),
            "VDC_RUN_DIR": str(self.stack.run_dir),
            "VDC_LOGS_DIR": str(self.stack.logs_dir),
            "VDC_POSTGRES_BIN": str(postgres.bin_dir(self.stack)),
            "VDC_PORT": str(content["port"]),
            "VDC_FILES_PORT": str(content["files_port"]),
        }
        started = subprocess.run(
            [sys.executable, "-m", "deploy.laptop.run_supervisord", "-c", PROCESSES],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            cwd=CLONE,
        )
        deadline = time.monotonic() + START_S
        while not self.is_alive():
            if started.returncode != 0 or time.monotonic() > deadline:
                words = (started.stderr or started.stdout).strip().splitlines() or ["it does not answer"]
                raise StackError(f"supervisord cannot start: {words[-1]}")
            time.sleep(0.05)

    def infos(self) -> dict[str, dict[str, Any]]:
        """What supervisor knows of each program, by name: statename, pid, description, spawnerr …"""
        return {info["name"]: info for info in self._call("getAllProcessInfo")}

    def state(self, program: str) -> str:
        return self._call("getProcessInfo", program)["statename"]

    def begin(self, program: str) -> None:
        """Asks for a start and returns at once."""
        self._tolerate(Faults.ALREADY_STARTED, "startProcess", program, False)

    def stop(self, programs: tuple[str, ...]) -> None:
        """Asks all to stop, then waits until the last one has; supervisor ends by force what does not come."""
        for program in programs:
            self._tolerate(Faults.NOT_RUNNING, "stopProcess", program, False)
        while any(self.infos()[program]["statename"] not in DOWN for program in programs):
            time.sleep(0.05)

    def shut_down(self) -> None:
        """Ends the daemon itself; its programs should be stopped before."""
        process = Path(f"/proc/{self._call('getPID')}/stat")
        self._call("shutdown")
        deadline = time.monotonic() + STOP_S
        while time.monotonic() < deadline and _lives(process):
            time.sleep(0.05)

    def _tolerate(self, fault: int, method: str, *arguments: Any) -> None:
        try:
            self._call(method, *arguments)
        except xmlrpc.client.Fault as exc:
            if exc.faultCode != fault:
                raise StackError(f"supervisord refused to {method} {arguments[0]}: {exc.faultString}") from exc


def _lives(stat: Path) -> bool:
    """A zombie, which nobody may come to reap, has ended."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
