"""Whether each program of a stack does its work, and if not, why, in one line."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import time
from collections.abc import Callable
from typing import Any

from deploy.laptop import cgroups, libvirt, machine, postgres
from deploy.laptop.stack import Stack, StackError
from deploy.laptop.supervision import COMING, Supervisor, programs_of
from deploy.stages import Stage

ANSWER_S = 5.0
PATIENCE_S = 90.0  # far more than any of them needs; libvirtd's first look at QEMU takes ten seconds
# A program that ended this often while we waited will not come by waiting longer.
ENDS = 3
LOW_DISK_BYTES = 64 << 20
LOG_TAIL_BYTES = 8192


def redis_answers(stack: Stack) -> bool:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(ANSWER_S)
        try:
            line.connect(str(stack.run_dir / "redis/redis.sock"))
            line.sendall(b"PING\r\n")
            return line.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def http_answers(port: int, path: str) -> bool:
    """True for a good answer to `path`; with no path any answer will do."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    try:
        connection.request("GET", path or "/")
        return connection.getresponse().status < 400 or not path
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def virtlogd_answers(stack: Stack) -> bool:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(ANSWER_S)
        try:
            line.connect(str(stack.run_dir / "libvirt/virtlogd-sock"))
        except OSError:
            return False
    return True


def checks(stack: Stack, content: dict[str, Any]) -> dict[str, tuple[str, Callable[[], bool]]]:
    """By program: what is asked, in words, and the asking. Others are healthy when supervisor says they run."""
    return {
        "postgres": ("takes connections", lambda: postgres.answers(stack)),
        "redis": ("answers PING", lambda: redis_answers(stack)),
        "virtlogd": ("takes connections", lambda: virtlogd_answers(stack)),
        "libvirtd": ("qemu and lxc answer", lambda: libvirt.answers(stack)),
        "web": (f"answers on 127.0.0.1:{content['port']}", lambda: http_answers(content["port"], "/healthz")),
        "files": (f"answers on 127.0.0.1:{content['files_port']}", lambda: http_answers(content["files_port"], "")),
    }


def await_health(stack: Stack, content: dict[str, Any], program: str, progress: Stage) -> None:
    """Returns when the program is healthy. Raises StackError with the reason when it will not be."""
    supervisor = Supervisor(stack)
    _, asked = checks(stack, content).get(program, ("", lambda: supervisor.state(program) == "RUNNING"))
    deadline = time.monotonic() + PATIENCE_S
    seen_pids: set[int] = set()
    while True:
        info = supervisor.infos()[program]
        seen_pids |= {info["pid"]} - {0}
        if info["statename"] in COMING and asked():
            progress.note = ""
            return
        gave_up = info["statename"] == "FATAL" or len(seen_pids) > ENDS
        if gave_up or time.monotonic() > deadline:
            raise StackError(f"{program} cannot start: {why(stack, content, program, info)}")
        progress.note = f"waiting for {program}"
        time.sleep(0.05)


def why(stack: Stack, content: dict[str, Any], program: str, info: dict[str, Any]) -> str:
    """The likeliest reason that a program does not work, in one line."""
    port = {"web": content["port"], "files": content["files_port"]}.get(program)
    if port and (taken := taken_port(stack, port)):
        return taken
    free_bytes = shutil.disk_usage(stack.state_dir).free
    if free_bytes < LOW_DISK_BYTES:
        return f"the disk of {stack.state_dir} is full ({free_bytes >> 20} MiB free)"
    said = last_words(stack, program)
    return f"{info['spawnerr'] or said or info['description']} (log: {stack.log(program)})"


def last_words(stack: Stack, program: str) -> str:
    """The last line that the program wrote, in words also where it is JSON."""
    try:
        with stack.log(program).open("rb") as file:
            file.seek(max(0, stack.log(program).stat().st_size - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    return _in_words(lines[-1].strip()) if lines else ""


def _in_words(line: str) -> str:
    try:
        said = json.loads(line)
    except ValueError:
        return line
    if not isinstance(said, dict) or "event" not in said:
        return line
    cause = said.get("error") or said.get("exception", "").strip().rpartition("\n")[2]
    return f"{said['event']}: {cause}" if cause else said["event"]


def taken_port(stack: Stack, port: int) -> str:
    """A sentence when somebody else holds the port, else an empty string."""
    if machine.can_bind(port):
        return ""
    holder = machine.port_holder(port)
    if holder is None:
        return f"port {port} is taken by a program that cannot be seen from here; choose another with VDC_PORT"
    pid, program = holder
    if pid in cgroups.processes(stack):
        return ""
    return f"port {port} is taken by {program} (pid {pid}); end it, or choose another port with VDC_PORT"


def table(stack: Stack, content: dict[str, Any]) -> tuple[list[str], bool]:
    """Lines for people, one per program, and whether all that was started is healthy."""
    infos = Supervisor(stack).infos()
    programs = programs_of(content)
    started = [program for program in programs if infos[program]["statename"] != "STOPPED"]
    lines, all_healthy = [f"  {'program':<14} {'state':<9} {'pid':>7}  health"], True
    for program in started:
        info = infos[program]
        words, asked = checks(stack, content).get(program, ("runs", lambda: True))
        healthy = info["statename"] in COMING and asked()
        all_healthy &= healthy
        state = "running" if healthy else info["statename"].lower()
        health = words if healthy else why(stack, content, program, info)
        lines.append(f"  {program:<14} {state:<9} {info['pid'] or '':>7}  {health}")
    if len(started) < len(programs):
        lines.append(f"  not started: {', '.join(program for program in programs if program not in started)}")
    return lines, all_healthy
