"""What the stacks of one machine share: locks, their numbers, networks and ports, and IP forwarding."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.laptop.stack import StackError

SHARED_DIR = Path("/run/vdc-machine")
# libvirt probes QEMU for some eight seconds; what it learns belongs to the machine, not to a stack.
LIBVIRT_CACHE = Path("/var/cache/vdc-machine/libvirt")
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NETWORK_POOLS = ("10.77.0.0/16", "172.30.0.0/16", "192.168.0.0/16")
FIRST_PORT = 8080
LINK = re.compile(r"v(\d+)(?:br0|s\d+n\d+)")


@contextmanager
def lock(name: str) -> Iterator[int]:
    """An flock that says so when it has to wait. Yields its descriptor.

    A tool that inherits the descriptor holds the lock on, should this process be killed before it ends.
    """
    SHARED_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (SHARED_DIR / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"  waiting for another command that works on {name!r}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def other_stacks(name: str) -> dict[str, dict[str, Any]]:
    """The stack files of this machine except that of `name`; unreadable ones are not ours to judge."""
    found = {}
    for file in Path("/var/lib").glob("*/stack.json"):
        try:
            content = json.loads(file.read_text())
        except (OSError, json.JSONDecodeError):
            continue
        if isinstance(content, dict) and "number" in content and file.parent.name != name:
            found[file.parent.name] = content
    return found


def host_links() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def free_number(others: dict[str, dict[str, Any]]) -> int:
    """The first number that no stack and no interface of this machine uses."""
    taken = {content["number"] for content in others.values()}
    taken |= {int(match[1]) for link in host_links() if (match := LINK.fullmatch(link))}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def host_networks() -> list[ipaddress.IPv4Network]:
    """Everything that the host has a route to, the default route aside."""
    printed = subprocess.run(
        ["ip", "-j", "-4", "route", "show", "table", "all"], check=True, capture_output=True, text=True
    ).stdout
    routes = [route["dst"] for route in json.loads(printed or "[]") if route.get("dst", "default") != "default"]
    return [ipaddress.IPv4Network(route, strict=False) for route in routes]


def free_network(number: int, others: dict[str, dict[str, Any]]) -> str:
    """A /24 that overlaps no route of the host and no other stack; 10.77.<number>.0/24 where possible."""
    taken = host_networks()
    taken += [ipaddress.IPv4Network(content["ipv4_network"]) for content in others.values()]
    for pool in NETWORK_POOLS:
        candidates = list(ipaddress.IPv4Network(pool).subnets(new_prefix=24))
        for candidate in candidates[number % 256 :] + candidates[: number % 256]:
            if not any(candidate.overlaps(network) for network in taken):
                return str(candidate)
    raise StackError(f"Every /24 of {', '.join(NETWORK_POOLS)} overlaps a route of this machine.")


def can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(above: int, others: dict[str, dict[str, Any]]) -> int:
    """The first port above `above` that nobody listens on and no other stack keeps for itself."""
    kept = {content.get(field) for content in others.values() for field in ("port", "files_port")}
    for port in range(above + 1, 65536):
        if port not in kept and can_bind(port):
            return port
    raise StackError(f"No port above {above} is free on 127.0.0.1.")


def port_holder(port: int) -> tuple[int, str] | None:
    """(pid, program) that listens on the port of 127.0.0.1 or of all addresses, None if nobody is found."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except FileNotFoundError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(fd.readlink()) in inodes for fd in (process / "fd").iterdir()):
                title = (process / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
                return int(process.name), title.rpartition("/")[2] if title.startswith("/") else title
        except OSError:
            continue  # it ended while we looked
    return None


def _forwarding_record() -> dict[str, Any]:
    try:
        record = json.loads((SHARED_DIR / "ip_forward.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {"stacks": []}
    # /run survives a reboot on machines without systemd; the value of an earlier boot says nothing.
    return record if record.get("boot_id") == BOOT_ID.read_text().strip() else {"stacks": []}


def _write_forwarding_record(record: dict[str, Any]) -> None:
    fresh = SHARED_DIR / "ip_forward.json.new"
    fresh.write_text(json.dumps(record))
    fresh.replace(SHARED_DIR / "ip_forward.json")


def hold_ip_forward(name: str) -> None:
    """Switches IPv4 forwarding on for this stack; the first one keeps the value that was there before."""
    with lock("machine"):
        record = _forwarding_record()
        if not record["stacks"]:
            record = {
                "boot_id": BOOT_ID.read_text().strip(),
                "original": IP_FORWARD.read_text().strip(),
                "stacks": [],
            }
        record["stacks"] = sorted({*record["stacks"], name})
        _write_forwarding_record(record)
        try:
            IP_FORWARD.write_text("1")
        except OSError as exc:
            raise StackError(f"IPv4 forwarding cannot be switched on ({exc.strerror}: {IP_FORWARD}).") from exc


def release_ip_forward(name: str) -> None:
    """The last stack to go down puts the first one's finding back."""
    with lock("machine"):
        record = _forwarding_record()
        if name not in record["stacks"]:
            return
        record["stacks"].remove(name)
        if not record["stacks"]:
            IP_FORWARD.write_text(record["original"])
        _write_forwarding_record(record)
