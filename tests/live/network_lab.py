"""A node, guests and an outside world made of network namespaces, for tests that must not touch the host's network."""

from __future__ import annotations

import secrets
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute, netns

from hypervisor.bridges import NetworkPlace, network_absent
from hypervisor.contract import NetworkSpec

Result = TypeVar("Result")

NODE_OUTER_ADDRESS = "198.51.100.1"
OUTSIDE_ADDRESS = "198.51.100.2"


def inside(namespace: str, action: Callable[[], Result]) -> Result:
    """Run `action` in a network namespace, in a thread that ends with it, and give back what it gives or raises."""
    outcome: dict[str, Any] = {}

    def body() -> None:
        try:
            netns.setns(namespace)
            outcome["result"] = action()
        except BaseException as fault:  # noqa: BLE001 - raised again in the thread that asked
            outcome["fault"] = fault

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if "fault" in outcome:
        raise outcome["fault"]
    return outcome["result"]


def run_inside(namespace: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return inside(namespace, lambda: subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False))


@dataclass
class Guest:
    """Something behind a port of a bridge."""

    namespace: str
    mac: str

    def set_mac(self, mac: str) -> None:
        def change() -> None:
            with IPRoute() as netlink:
                index = netlink.link_lookup(ifname="eth0")[0]
                netlink.link("set", index=index, state="down")
                netlink.flush_addr(index=index)
                netlink.link("set", index=index, address=mac, state="up")

        inside(self.namespace, change)
        self.mac = mac

    def set_address(self, address: str, gateway: str) -> None:
        def change() -> None:
            with IPRoute() as netlink:
                index = netlink.link_lookup(ifname="eth0")[0]
                netlink.flush_addr(index=index)
                netlink.addr("add", index=index, address=address, prefixlen=24)
                netlink.route("replace", dst="default", gateway=gateway)

        inside(self.namespace, change)

    def ask_for_address(self, directory: Path) -> dict[str, str]:
        """Send one DISCOVER, and only one, and wait 5 s for the answer; {} when none came. Sets the address up."""
        answer = directory / f"{self.namespace}.dhcp"
        script = directory / "udhcpc.script"
        script.write_text(f'#!/bin/sh\n[ "$1" = bound ] && env > {answer}\nexit 0\n')
        script.chmod(0o755)
        answer.unlink(missing_ok=True)
        run_inside(
            self.namespace,
            *("busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "1", "-T", "5", "-s", str(script)),
        )
        if not answer.exists():
            return {}
        options = dict(line.split("=", 1) for line in answer.read_text().splitlines() if "=" in line)
        self.set_address(options["ip"], options["router"])
        return options

    def pings(self, address: str) -> bool:
        return run_inside(self.namespace, "busybox", "ping", "-c", "1", "-W", "2", address).returncode == 0


def listen(namespace: str, address: str) -> socket.socket:
    """A TCP listener in a namespace; it stays there when it is used from elsewhere."""

    def create() -> socket.socket:
        listener = socket.create_server((address, 0))
        listener.settimeout(5)
        return listener

    return inside(namespace, create)


def reaches(namespace: str, listener: socket.socket, address: str) -> str | None:
    """Connect to a listener; the address that it sees the caller under, or None when nothing came through in 1 s."""
    port = listener.getsockname()[1]
    try:
        with inside(namespace, lambda: socket.create_connection((address, port), timeout=1)):
            accepted, (seen, _) = listener.accept()
            accepted.close()
            return seen
    except TimeoutError:
        return None


class NetworkLab:
    """One node with the host's side of everything, an outside that knows no way back into the networks, and guests."""

    def __init__(self, cleanup: ExitStack) -> None:
        self._cleanup = cleanup
        self._tag = f"vdct{secrets.token_hex(3)}"
        directory = tempfile.TemporaryDirectory(prefix=self._tag)
        self.directory = Path(cleanup.enter_context(directory))
        self.directory.chmod(0o755)  # the DHCP server must pass, as in /run/<stack>
        self.node = self._namespace("node")
        self.outside = self._namespace("outside")
        self._wire()
        self.set_forwarding("1")

    def set_forwarding(self, value: str) -> None:
        inside(self.node, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text(value))

    def place(self, uid: str) -> NetworkPlace:
        """Where a network shall live; what it leaves is removed after the test."""
        place = NetworkPlace(run_dir=self.directory / "networks" / uid, nft_table="vdc_lab")
        self._cleanup.callback(inside, self.node, lambda: network_absent(uid, place))
        return place

    def guest(self, spec: NetworkSpec, *, number: int = 0, mac: str = "52:54:00:00:00:02") -> Guest:
        """A namespace with an eth0 whose other end is a port of the network's bridge."""
        namespace = self._namespace(f"guest{number}")
        port = f"v9s{number}n0"

        def plug() -> None:
            with IPRoute() as netlink:
                peer = {"ifname": "eth0", "net_ns_fd": namespace, "address": mac}
                netlink.link("add", ifname=port, kind="veth", peer=peer)
                bridge = netlink.link_lookup(ifname=spec.bridge)[0]
                netlink.link("set", index=netlink.link_lookup(ifname=port)[0], master=bridge, state="up")

        inside(self.node, plug)
        _set_up(namespace, "eth0")
        return Guest(namespace, mac)

    def _namespace(self, name: str) -> str:
        namespace = f"{self._tag}-{name}"
        netns.create(namespace)
        self._cleanup.callback(netns.remove, namespace)
        _set_up(namespace, "lo")
        return namespace

    def _wire(self) -> None:
        def connect() -> None:
            with IPRoute() as netlink:
                netlink.link("add", ifname="uplink", kind="veth", peer={"ifname": "eth0", "net_ns_fd": self.outside})

        inside(self.node, connect)
        for namespace, interface, address in (
            (self.node, "uplink", NODE_OUTER_ADDRESS),
            (self.outside, "eth0", OUTSIDE_ADDRESS),
        ):
            _set_up(namespace, interface, address)


def _set_up(namespace: str, interface: str, address: str = "") -> None:
    def change() -> None:
        with IPRoute() as netlink:
            index = netlink.link_lookup(ifname=interface)[0]
            if address:
                netlink.addr("add", index=index, address=address, prefixlen=24)
            netlink.link("set", index=index, state="up")

    inside(namespace, change)
