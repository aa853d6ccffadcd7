"""Taking a stack down: guests first and in order, then the programs, then everything that could be left over."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
import time
import xmlrpc.client
from typing import Any

from deploy.laptop import cgroups, claim, health, leftovers, libvirt, machine, namespaces
from deploy.laptop.mounts import mounts_below
from deploy.laptop.stack import CLONE, Stack, StackError
from deploy.laptop.supervision import NODE, Supervisor, programs_of
from deploy.stages import stage

# Guests get 60 s to power off and are then ended by force, all at once; what takes longer than this hangs.
DRAIN_S = 240.0
# The doors first, so that nothing new comes in; the record last.
ORDER = (
    ("web", "files"),
    ("sweep", "control"),
    ("fleet-observer", "fleet-ops", "fleet-bulk", "node-observer", "node-ops", "node-bulk"),
    ("libvirtd",),
    ("virtlogd", "redis"),
    ("postgres",),
)


def down(name: str) -> None:
    """Ends everything of the stack and leaves its data. Fine when nothing runs."""
    stack = Stack(name)
    _refuse_ordinary_users()
    with machine.lock(f"stack-{name}") as lock:
        _take_down(stack, lock)


def clean(name: str) -> None:
    """`down`, then the data as well. Fine when nothing is there."""
    stack = Stack(name)
    _refuse_ordinary_users()
    with machine.lock(f"stack-{name}") as lock:
        if not _take_down(stack, lock):
            return
        if below := mounts_below(stack.state_dir):
            raise StackError(f"{below[0]} is still mounted; the data of {name!r} stays.")
        with stage("data", f"remove {stack.state_dir}"):
            # The stack file goes last: until then the directory can be told to be ours.
            for entry in stack.state_dir.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry != stack.file:
                    entry.unlink()
            stack.file.unlink()
            stack.state_dir.rmdir()


def _refuse_ordinary_users() -> None:
    if os.geteuid() != 0:
        raise StackError("A stack is root's: run this as root.")


def _take_down(stack: Stack, lock: int) -> bool:
    """False when there is no such stack."""
    content = claim.owned(stack)
    if content is None:
        print(f"There is no stack {stack.name!r}.", flush=True)
        return False
    stop_everything(stack, content, lock)
    return True


def stop_everything(stack: Stack, content: dict[str, Any], lock: int) -> None:
    """Also finishes what an interrupted stop or a killed supervisor left behind."""
    if not stack.run_dir.exists() and not cgroups.processes(stack):
        print(f"{stack.name!r} is down.", flush=True)
        return
    print(f"Stopping the stack {stack.name!r}", flush=True)
    stack.run_dir.mkdir(mode=0o755, exist_ok=True)
    stack.going_down.touch()
    cgroups.wake(stack)
    supervisor = Supervisor(stack)
    if supervisor.is_alive():
        _drain(stack, content, supervisor, lock)
        try:
            _stop_programs(stack, content, supervisor)
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as exc:
            print(f"  supervisor     died meanwhile ({exc}); going on without it", flush=True)
    with stage("leftovers", "processes, namespaces, links, tables, loops"):
        cgroups.end(stack, cgroups.processes)
        leftovers.end_named_processes(stack)
        namespaces.unpin(stack)
        leftovers.remove(stack, content)
        cgroups.remove(stack)
        machine.release_ip_forward(stack.name)
        shutil.rmtree(stack.run_dir)


def _drain(stack: Stack, content: dict[str, Any], supervisor: Supervisor, lock: int) -> None:
    """Powers the guests off as operations, which needs everything alive; without that they are ended by force."""
    infos = supervisor.infos()
    if all(infos[program]["statename"] == "STOPPED" for program in NODE):
        return  # there was no node, or an earlier stop has drained it
    asked = health.checks(stack, content)
    dead = [program for program in ("postgres", "redis", "libvirtd") if not asked[program][1]()]
    dead += [program for program in ("control", *NODE) if infos[program]["statename"] != "RUNNING"]
    if dead:
        print(f"  guests         cannot be powered off in order without {', '.join(dead)}", flush=True)
        return
    print("  guests         power off in order", flush=True)
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "manage.py", "node", "drain"],
            cwd=CLONE,
            env=stack.environment(),
            stdin=subprocess.DEVNULL,
            pass_fds=(lock,),
            timeout=DRAIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"  guests         did not come down within {DRAIN_S:.0f} s", flush=True)
        return
    word = "are off" if done.returncode == 0 else f"drain failed (exit code {done.returncode})"
    print(f"  guests         {word}  {time.monotonic() - began:.1f} s", flush=True)


def _stop_programs(stack: Stack, content: dict[str, Any], supervisor: Supervisor) -> None:
    ours = programs_of(content)
    for programs in (tuple(program for program in group if program in ours) for group in ORDER):
        with stage("stop", ", ".join(programs)):
            if programs == ("libvirtd",) and (ended := libvirt.destroy_guests(stack)):
                print(f"  guests         ended by force: {', '.join(ended)}", flush=True)
            supervisor.stop(programs)
    supervisor.shut_down()
