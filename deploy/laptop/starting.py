"""Bringing a stack up: every stage may be repeated, so an interrupted `up` is simply begun again."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from deploy.laptop import cgroups, claim, health, libvirt, machine, namespaces, postgres, stopping
from deploy.laptop.stack import CLONE, PATH, Stack, StackError
from deploy.laptop.supervision import COMING, INFRASTRUCTURE, NODE, Supervisor, programs_of
from deploy.stages import stage

INFRASTRUCTURE_ONLY = "infrastructure"
NEEDED_TOOLS = ("redis-server", "libvirtd", "virtlogd", "virsh", "nft", "dnsmasq", "nsenter", "losetup", "ip")
NEEDED_USERS = (postgres.USER, "redis", libvirt.QEMU_USER)
NEEDED_DISK_BYTES = 512 << 20
# 0711: QEMU reaches the files that are its own and lists nothing.
NODE_DIRS = ("images", "volumes", "trash", "guests", "mounts", "consoles", "cache")


def up(name: str, only: str | None = None, port: int | None = None) -> dict[str, Any]:
    """Starts the stack, or what of it does not run, and returns its stack file.

    `only="infrastructure"` leaves it at PostgreSQL, Redis and libvirt. Raises StackError with one sentence.
    """
    stack = Stack(name)
    _refuse_unfit_machine(stack)
    with machine.lock(f"stack-{name}") as lock:
        content = claim.owned(stack)
        if content and port not in (None, content["port"]):
            _make_way_for_port(stack, content, port)
        content = claim.claim(stack, port)
        if stack.going_down.exists():
            stopping.stop_everything(stack, content, lock)  # an interrupted stop is finished before anything starts
        if _is_up(stack, content, INFRASTRUCTURE if only else programs_of(content)):
            print(f"{name!r} is up already.", flush=True)
            return content
        print(f"Starting the stack {name!r} in {stack.state_dir}", flush=True)
        if only != INFRASTRUCTURE_ONLY:
            content = _free_ports(stack, content)
        machine.hold_ip_forward(name)
        _make_directories(stack)
        _start_supervisor(stack, content)
        _start_infrastructure(stack, content, lock)
        if only != INFRASTRUCTURE_ONLY:
            content = _start_product(stack, content, lock)
    return content


def _refuse_unfit_machine(stack: Stack) -> None:
    if os.geteuid() != 0:
        raise StackError("A stack makes bridges, mounts and namespaces: run this as root.")
    missing = [tool for tool in NEEDED_TOOLS if shutil.which(tool, path=PATH) is None]
    known = {entry.pw_name for entry in pwd.getpwall()}
    missing += [f"user {user}" for user in NEEDED_USERS if user not in known]
    if missing:
        raise StackError(f"Missing on this machine: {', '.join(missing)}; `make install` brings them.")
    free_bytes = shutil.disk_usage("/var/lib").free
    if free_bytes < NEEDED_DISK_BYTES:
        raise StackError(
            f"The disk of /var/lib has {free_bytes >> 20} MiB left; the stack {stack.name!r} needs at least "
            f"{NEEDED_DISK_BYTES >> 20} MiB."
        )


def _make_way_for_port(stack: Stack, content: dict[str, Any], port: int) -> None:
    """The programs learn their ports when supervisor starts."""
    supervisor = Supervisor(stack)
    if not supervisor.is_alive():
        return
    if supervisor.state("web") in COMING:
        raise StackError(f"{stack.name!r} runs on port {content['port']}; `make down` first, then choose port {port}.")
    stack.going_down.touch()


def _free_ports(stack: Stack, content: dict[str, Any]) -> dict[str, Any]:
    """Before anything starts: people know the port of the web, so it stays or is said to be taken."""
    if taken := health.taken_port(stack, content["port"]):
        raise StackError(f"web cannot start: {taken}.")
    if taken := health.taken_port(stack, content["files_port"]):
        if Supervisor(stack).is_alive():
            raise StackError(f"files cannot start: {taken}.")
        content = claim.move_files_port(stack, content)
    return content


def _is_up(stack: Stack, content: dict[str, Any], programs: tuple[str, ...]) -> bool:
    supervisor = Supervisor(stack)
    if not supervisor.is_alive():
        return False
    infos = supervisor.infos()
    asked = health.checks(stack, content)
    return all(infos[program]["statename"] in COMING for program in programs) and all(
        asked[program][1]() for program in programs if program in asked
    )


def _make_directories(stack: Stack) -> None:
    stack.run_dir.mkdir(mode=0o755, exist_ok=True)
    for directory, mode in (
        (stack.logs_dir, 0o755),
        (stack.state_dir / "storage", 0o711),
        (stack.run_dir / "locks", 0o700),
    ):
        directory.mkdir(mode=mode, exist_ok=True)
    for directory in (stack.state_dir / "node", *(stack.state_dir / "node" / part for part in NODE_DIRS)):
        directory.mkdir(mode=0o711, exist_ok=True)
    for directory in (stack.state_dir / "redis", stack.run_dir / "redis"):
        directory.mkdir(mode=0o700, exist_ok=True)
        shutil.chown(directory, "redis", "redis")


def _start_supervisor(stack: Stack, content: dict[str, Any]) -> None:
    supervisor = Supervisor(stack)
    if supervisor.is_alive():
        return
    with stage("supervisor", "namespaces, cgroups and the process manager"):
        cgroups.create(stack)
        if not namespaces.are_ready(stack):
            cgroups.end(stack, cgroups.processes)
            cgroups.remove(stack)
            cgroups.create(stack)
        # Programs whose supervisor was killed would stand in the way; guests may go on.
        cgroups.end(stack, cgroups.services)
        namespaces.pin(stack)
        supervisor.start(content)


def _start_infrastructure(stack: Stack, content: dict[str, Any], lock: int) -> None:
    supervisor = Supervisor(stack)
    postgres_runs = supervisor.state("postgres") in COMING
    if postgres.needs_cluster(stack):
        with stage("postgres", "initialise the database cluster"):
            postgres.make_cluster(stack, lock)
    if not postgres_runs:
        postgres.configure(stack)
    libvirt.configure(stack)
    for program in INFRASTRUCTURE:
        supervisor.begin(program)
    for program, does in (
        ("postgres", "start the database"),
        ("redis", "start the doorbell"),
        ("virtlogd", "start the keeper of consoles"),
        ("libvirtd", "start libvirt; the first time on a machine it looks at QEMU for some seconds"),
    ):
        with stage(program, does) as progress:
            health.await_health(stack, content, program, progress)
            if program == "postgres":
                postgres.ensure_role(stack, content["database"])


def _start_product(stack: Stack, content: dict[str, Any], lock: int) -> dict[str, Any]:
    supervisor = Supervisor(stack)
    if all(supervisor.state(program) not in COMING for program in NODE):
        content = claim.renew_start_id(stack, content)
    manage(
        stack, "migrate", "bring the tables up to date", "migrate", "--noinput", "--verbosity", "0", inherited=(lock,)
    )
    manage(stack, "node", "see what this machine can do", "node", "join", inside=True, inherited=(lock,))
    manage(stack, "prepare", "operator, account, network and storage", "prepare_stack", inherited=(lock,))
    if content.get("fake_nodes"):
        manage(stack, "fleet", "nodes that pretend", "fleet", "join", str(content["fake_nodes"]), inherited=(lock,))
    programs = programs_of(content)[len(INFRASTRUCTURE) :]
    for program in programs:
        supervisor.begin(program)
    with stage("processes", "web, workers and this machine's node") as progress:
        for program in programs:
            health.await_health(stack, content, program, progress)
    return content


def manage(
    stack: Stack, name: str, does: str, *words: str, inside: bool = False, inherited: tuple[int, ...] = ()
) -> None:
    """Runs one command of manage.py as a stage; what it prints goes to a log that the error names.

    `inside`: in the stack's mount namespace, where the node's files are mounted. `inherited`: descriptors of locks
    that it holds until it ends.
    """
    log = stack.log(f"setup-{name}")
    argv = [sys.executable, "manage.py", *words]
    if inside:
        argv = ["nsenter", f"--mount={namespaces.directory(stack) / 'mnt'}", f"--wdns={CLONE}", "--", *argv]
    with stage(name, does), log.open("w") as output:
        done = subprocess.run(
            argv,
            cwd=CLONE,
            env=stack.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=inherited,
            check=False,
        )
    if done.returncode != 0:
        raise StackError(f"`manage.py {' '.join(words)}` failed: {_tail(log)} (log: {log})")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
