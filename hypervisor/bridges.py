"""Networks on a node, level-triggered: what is missing is made, what is right is not touched.

A network is a bridge with the gateway's address (bridge_link.py), firewall rules with NAT (nat.py) and a DHCP server
(dhcp.py). All of it lives in the kernel and in `run_dir`, so it is gone after a reboot and made anew from the spec.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hypervisor.bridge_link import bridge_index, bridge_missing, ensure_bridge, forwards_packets, port_of, remove_bridge
from hypervisor.contract import NetworkSpec, Permanent, Transient, Watch
from hypervisor.dhcp import dhcp_missing, end_dnsmasq, ensure_dhcp
from hypervisor.nat import ensure_rules, remove_rules, rules_missing
from hypervisor.whole_files import write_whole

__all__ = ["NetworkPlace", "ensure_network", "network_absent", "observe_network", "port_of"]

LOCK_TIMEOUT_S = 30.0
_LOCK_RETRY_S = 0.02
_RECORD = "network.json"


@dataclass(frozen=True, slots=True)
class NetworkPlace:
    """Where a network lives on a node.

    `run_dir` is this network's alone (/run/<stack>/networks/<uid>); networks of one stack have the same parent
    directory and the same `nft_table`, and no other stack has either.
    """

    run_dir: Path
    nft_table: str


def ensure_network(spec: NetworkSpec, place: NetworkPlace, watch: Watch | None = None) -> None:
    """Make the network as the spec says. Afterwards every lease is answered at the guest's first DHCP packet.

    Safe to call again, and from several processes at once. Raises Permanent (a word in the spec is wrong, ip_forward
    is off, a foreign link wears the bridge's name, a tool is missing) or Transient (a call did not end in time).
    """
    _check(spec, place)
    if not forwards_packets():
        raise Permanent(
            f"net.ipv4.ip_forward is 0 on this node: guests of network {spec.uid} would not reach the outside.",
            advice="Starting the stack turns it on; somebody turned it off since: sysctl -w net.ipv4.ip_forward=1.",
        )
    with _locked(place.run_dir / "lock", watch):
        write_whole(place.run_dir / _RECORD, json.dumps({"uid": spec.uid, "bridge": spec.bridge}))
        _checkpoint(watch)
        # Rules first: no packet of a guest passes a bridge that has none. They name the bridge and need no bridge.
        with _firewall_lock(place, watch):
            ensure_rules(spec, place.nft_table, place.run_dir, watch)
        _checkpoint(watch)
        index = ensure_bridge(spec, place.nft_table)
        _checkpoint(watch)
        ensure_dhcp(spec, place.run_dir, index, watch)


def network_absent(network: NetworkSpec | str, place: NetworkPlace, watch: Watch | None = None) -> None:
    """Take the network away, guests plugged or not: DHCP server, bridge, rules, `run_dir`. Absent already: no change.

    `network` is the spec or only its uid, when `run_dir` still tells which bridge it had.
    """
    if not place.run_dir.exists() and isinstance(network, str):
        return
    with _locked(place.run_dir / "lock", watch):
        uid, bridge = (network, _recorded_bridge(place)) if isinstance(network, str) else (network.uid, network.bridge)
        end_dnsmasq(place.run_dir)
        if bridge is not None:
            remove_bridge(uid, bridge, place.nft_table)
            with _firewall_lock(place, watch):
                remove_rules(bridge, place.nft_table, watch)
        _remove_directory(place.run_dir)


def observe_network(spec: NetworkSpec, place: NetworkPlace) -> list[str]:
    """What is missing or wrong, as sentences; empty when `ensure_network` would change nothing."""
    _check(spec, place)
    missing = [] if forwards_packets() else ["net.ipv4.ip_forward is 0"]
    missing += bridge_missing(spec, place.nft_table)
    missing += rules_missing(spec, place.nft_table, place.run_dir)
    missing += dhcp_missing(spec, place.run_dir, bridge_index(spec.bridge))
    return missing


def _check(spec: NetworkSpec, place: NetworkPlace) -> None:
    """These words go into rules and command lines: refuse what is none."""
    if not re.fullmatch(r"[a-z][a-z0-9]{0,14}", spec.bridge):
        raise Permanent(f"{spec.bridge!r} cannot name the bridge of network {spec.uid}: at most 15 of [a-z0-9].")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", place.nft_table):
        raise Permanent(f"{place.nft_table!r} cannot name a firewall table: at most 64 of [a-z0-9_].")
    try:
        network = ipaddress.IPv4Network(spec.ipv4_network)
        gateway = ipaddress.IPv4Address(spec.gateway)
        for server in spec.dns:
            ipaddress.IPv4Address(server)
    except ValueError as fault:
        raise Permanent(f"Network {spec.uid} has an address that is none: {fault}.") from fault
    if gateway not in network:
        raise Permanent(f"The gateway {spec.gateway} of network {spec.uid} is not in {network}.")


def _recorded_bridge(place: NetworkPlace) -> str | None:
    try:
        return str(json.loads((place.run_dir / _RECORD).read_text())["bridge"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _checkpoint(watch: Watch | None) -> None:
    if watch is not None:
        watch.checkpoint()


@contextmanager
def _firewall_lock(place: NetworkPlace, watch: Watch | None) -> Iterator[None]:
    """One network of the stack at a time: the last to leave takes the table away, none may move in meanwhile."""
    with _locked(place.run_dir.parent / ".nft.lock", watch):
        yield


@contextmanager
def _locked(path: Path, watch: Watch | None) -> Iterator[None]:
    """Hold flock(2) on a file that its holder may delete: a lock on a file that is no longer there is none."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        _make_directory(path.parent)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # its directory went away between the two calls
        try:
            if _try_lock(descriptor) and _is_at(path, descriptor):
                yield
                return
        finally:
            os.close(descriptor)
        if time.monotonic() > deadline:
            raise Transient(f"Another process has held {path} for {LOCK_TIMEOUT_S:g} seconds.")
        (watch.pause if watch is not None else time.sleep)(_LOCK_RETRY_S)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        there, held = path.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)


def _remove_directory(run_dir: Path) -> None:
    """Empty and remove it while holding the lock in it; the lock goes last, for then another may come in."""
    for path in run_dir.iterdir():
        if path.name != "lock":
            path.unlink()
    (run_dir / "lock").unlink()
    # Somebody who waited for the lock is making the network anew in here: then it stays.
    with suppress(OSError):
        run_dir.rmdir()


def _make_directory(path: Path) -> None:
    """Make it and what is missing above it, passable for the user of the DHCP server whatever the umask is."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        return
    path.chmod(0o755)
