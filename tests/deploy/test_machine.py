"""What stacks share on one machine: numbers, networks, ports, IP forwarding."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.laptop import machine

LISTENER = """
import socket, sys
door = socket.create_server(("127.0.0.1", 0))
print(door.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def forwarding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    switch = tmp_path / "ip_forward"
    switch.write_text("0")
    monkeypatch.setattr(machine, "IP_FORWARD", switch)
    monkeypatch.setattr(machine, "SHARED_DIR", tmp_path / "shared")
    return switch


@pytest.fixture
def listener() -> Iterator[tuple[int, int]]:
    """(pid, port) of another program that listens."""
    with subprocess.Popen(
        [sys.executable, "-c", LISTENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process.pid, int(process.stdout.readline())
        process.stdin.close()


def test_the_last_stack_to_go_down_puts_ip_forwarding_back(forwarding: Path):
    machine.hold_ip_forward("one")
    machine.hold_ip_forward("two")
    assert forwarding.read_text() == "1"
    machine.release_ip_forward("one")
    assert forwarding.read_text() == "1"
    machine.release_ip_forward("two")
    assert forwarding.read_text() == "0"


def test_a_stack_that_goes_up_twice_holds_ip_forwarding_once(forwarding: Path):
    machine.hold_ip_forward("one")
    machine.hold_ip_forward("one")
    machine.release_ip_forward("one")
    assert forwarding.read_text() == "0"


def test_a_stack_that_was_not_up_changes_no_ip_forwarding(forwarding: Path):
    forwarding.write_text("1")
    machine.release_ip_forward("stranger")
    assert forwarding.read_text() == "1"


def test_a_record_of_an_earlier_boot_says_nothing(forwarding: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    machine.hold_ip_forward("before")
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("another boot")
    monkeypatch.setattr(machine, "BOOT_ID", boot_id)
    forwarding.write_text("0")
    machine.hold_ip_forward("after")
    machine.release_ip_forward("after")
    assert forwarding.read_text() == "0"


def test_a_number_is_free_when_no_stack_and_no_interface_has_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "host_links", lambda: {"lo", "v1br0", "v3s0n0"})
    assert machine.free_number({"a": {"number": 0}, "b": {"number": 2}}) == 4


def test_a_network_overlaps_no_route_and_no_other_stack(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "host_networks", lambda: [ipaddress.IPv4Network("10.77.5.0/24")])
    assert machine.free_network(5, {"other": {"ipv4_network": "10.77.6.0/24"}}) == "10.77.7.0/24"


def test_a_machine_that_routes_all_of_ten_gets_another_pool(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "host_networks", lambda: [ipaddress.IPv4Network("10.0.0.0/8")])
    assert machine.free_network(3, {}) == "172.30.3.0/24"


def test_the_routes_of_this_machine_can_be_read():
    assert ipaddress.IPv4Network("127.0.0.0/8").overlaps(next(n for n in machine.host_networks() if n.is_loopback))


def test_a_port_that_another_stack_keeps_is_not_free():
    free = machine.free_port(20000, {})
    assert machine.free_port(20000, {"other": {"port": free}}) > free


def test_the_program_that_holds_a_port_is_named(listener: tuple[int, int]):
    pid, port = listener
    assert not machine.can_bind(port)
    holder = machine.port_holder(port)
    assert holder is not None
    assert holder[0] == pid


def test_nobody_holds_a_free_port():
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    assert machine.port_holder(port) is None
