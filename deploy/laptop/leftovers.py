"""What a stack may leave on the host when its programs are gone: found by the stack's own names, and removed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from deploy.laptop import machine
from deploy.laptop.mounts import mounts_below
from deploy.laptop.stack import Stack, StackError

PATIENCE_S = 15.0
GUEST_PROGRAMS = ("qemu-system", "dnsmasq", "libvirt_lxc")


def end_named_processes(stack: Stack) -> None:
    """Guests and DHCP servers that name our directories but were started outside our cgroups."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _named_processes(stack):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + PATIENCE_S
        while (left := _named_processes(stack)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if not left:
            return
    raise StackError(f"These processes of {stack.name!r} do not end: {', '.join(map(str, sorted(left)))}.")


def remove_links(number: int) -> None:
    """The bridge and the guests' ends of their cables."""
    ours = re.compile(rf"v{number}(?:br0|s\d+n\d+)")
    for name in sorted(machine.host_links()):
        if ours.fullmatch(name) and name in machine.host_links():
            subprocess.run(["ip", "link", "delete", name], check=True, capture_output=True)


def remove_tables(table: str) -> None:
    """Our firewall table, in whichever families it stands."""
    listed = subprocess.run(["nft", "-j", "list", "tables"], check=True, capture_output=True, text=True).stdout
    for entry in json.loads(listed)["nftables"]:
        if entry.get("table", {}).get("name") == table:
            subprocess.run(["nft", "delete", "table", entry["table"]["family"], table], check=True)


def remove_mounts(stack: Stack) -> None:
    for directory in (stack.run_dir, stack.state_dir):
        for target in mounts_below(directory):
            subprocess.run(["umount", target], check=True)


def remove_loops(stack: Stack) -> None:
    """Loop devices on files of the stack; one that is still mounted somewhere is let go a moment later."""
    deadline = time.monotonic() + PATIENCE_S
    while devices := _loops(stack):
        for device in devices:
            subprocess.run(["losetup", "-d", device], check=False, capture_output=True)
        if time.monotonic() > deadline:
            raise StackError(f"{', '.join(devices)} cannot be detached from the files below {stack.state_dir}.")
        time.sleep(0.05)


def remove(stack: Stack, content: dict[str, Any]) -> None:
    """All of it, after the programs have ended and the namespaces are unpinned."""
    remove_links(content["number"])
    remove_tables(content["nft_table"])
    remove_mounts(stack)
    remove_loops(stack)


def _named_processes(stack: Stack) -> set[int]:
    found = set()
    marks = (f"{stack.run_dir}/".encode(), f"{stack.state_dir}/".encode())
    for process in Path("/proc").glob("[0-9]*"):
        try:
            program, *words = (process / "cmdline").read_bytes().split(b"\0")
            if not (process / "root").samefile("/"):  # of a container, which may have a stack of this name too
                continue
        except (OSError, ValueError):
            continue
        if os.path.basename(program.decode(errors="replace")).startswith(GUEST_PROGRAMS) and any(  # noqa: PTH119
            mark in word for word in words for mark in marks
        ):
            found.add(int(process.name))
    return found


def _loops(stack: Stack) -> list[str]:
    listed = subprocess.run(
        ["losetup", "--list", "--json", "--output", "NAME,BACK-FILE,BACK-INO"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    devices = json.loads(listed)["loopdevices"] if listed.strip() else []
    return [
        device["name"]
        for device in devices
        if (device["back-file"] or "").startswith(f"{stack.state_dir}/") and _is_here(device)
    ]


def _is_here(device: dict[str, Any]) -> bool:
    """Loop devices are the whole machine's: one on the same path in a container's file system is not ours."""
    try:
        return Path(device["back-file"]).stat().st_ino == device["back-ino"]
    except FileNotFoundError:
        return device["back-file"].endswith("(deleted)")
