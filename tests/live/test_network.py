"""A real bridge, nftables and dnsmasq, with guests that speak DHCP and an outside to reach; all in namespaces."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from hypervisor.bridges import NetworkPlace, ensure_network, network_absent, observe_network, port_of
from hypervisor.contract import LeaseSpec, NetworkSpec, Permanent
from hypervisor.dhcp import LOG_LIMIT_BYTES, find_dnsmasq
from tests.live.network_lab import (
    NODE_OUTER_ADDRESS,
    OUTSIDE_ADDRESS,
    Guest,
    NetworkLab,
    inside,
    listen,
    reaches,
    run_inside,
)

pytestmark = pytest.mark.live

SPEC = NetworkSpec(
    uid="nw-lab",
    bridge="v9br0",
    ipv4_network="10.77.9.0/24",
    gateway="10.77.9.1",
    dns=("192.0.2.53",),
    leases=(LeaseSpec(mac="52:54:00:00:00:02", ipv4="10.77.9.2", hostname="first"),),
)


@pytest.fixture
def lab() -> Iterator[NetworkLab]:
    with ExitStack() as cleanup:
        yield NetworkLab(cleanup)


@pytest.fixture
def place(lab: NetworkLab) -> NetworkPlace:
    return lab.place(SPEC.uid)


def _ensure(lab: NetworkLab, place: NetworkPlace, spec: NetworkSpec = SPEC) -> None:
    inside(lab.node, lambda: ensure_network(spec, place))


def _observe(lab: NetworkLab, place: NetworkPlace, spec: NetworkSpec = SPEC) -> list[str]:
    return inside(lab.node, lambda: observe_network(spec, place))


def _dnsmasq_pid(place: NetworkPlace) -> int:
    found = find_dnsmasq(place.run_dir)
    assert found is not None
    return found[0]


def _links(namespace: str) -> set[str]:
    def ask() -> set[str]:
        with IPRoute() as netlink:
            return {link.get("ifname") for link in netlink.get_links()}

    return inside(namespace, ask)


def _everything(lab: NetworkLab, place: NetworkPlace) -> tuple[object, ...]:
    """All that a second call could change: rules with their handles, the process, the link, the files."""

    def link() -> str:
        with IPRoute() as netlink:
            found = netlink.get_links(netlink.link_lookup(ifname=SPEC.bridge)[0])[0]
            return f"{found['index']} {found.get('address')}"

    rules = run_inside(lab.node, "nft", "-j", "list", "ruleset").stdout
    files = {
        path.name: path.stat().st_mtime_ns
        for path in place.run_dir.iterdir()
        if path.name in ("told", "hosts", "options")
    }
    return rules, _dnsmasq_pid(place), inside(lab.node, link), files


def test_a_guest_gets_its_address_router_and_name_server(lab: NetworkLab, place: NetworkPlace) -> None:
    _ensure(lab, place)
    got = lab.guest(SPEC).ask_for_address(lab.directory)
    assert (got["ip"], got["router"], got["dns"]) == ("10.77.9.2", "10.77.9.1", "192.0.2.53")
    assert (got["mask"], got["hostname"]) == ("24", "first")


def test_a_new_lease_is_answered_at_the_first_packet(lab: NetworkLab, place: NetworkPlace) -> None:
    _ensure(lab, place)
    guest = lab.guest(SPEC)
    spec = SPEC
    pid = _dnsmasq_pid(place)
    for number in range(3, 18):
        lease = LeaseSpec(mac=f"52:54:00:00:00:{number:02x}", ipv4=f"10.77.9.{number}", hostname=f"guest-{number}")
        spec = replace(spec, leases=(*spec.leases, lease))
        guest.set_mac(lease.mac)
        _ensure(lab, place, spec)
        assert guest.ask_for_address(lab.directory).get("ip") == lease.ipv4
    assert _dnsmasq_pid(place) == pid


def test_an_address_that_another_guest_had_goes_to_its_new_holder_at_once(lab: NetworkLab, place: NetworkPlace) -> None:
    _ensure(lab, place)
    guest = lab.guest(SPEC)
    assert guest.ask_for_address(lab.directory)["ip"] == "10.77.9.2"
    handed_over = replace(SPEC, leases=(LeaseSpec(mac="52:54:00:00:00:99", ipv4="10.77.9.2", hostname="second"),))
    assert any("still lends 10.77.9.2" in sentence for sentence in _observe(lab, place, handed_over))
    _ensure(lab, place, handed_over)
    guest.set_mac("52:54:00:00:00:99")
    assert guest.ask_for_address(lab.directory).get("ip") == "10.77.9.2"
    assert _observe(lab, place, handed_over) == []


def test_a_guest_whose_address_changed_gets_the_new_one(lab: NetworkLab, place: NetworkPlace) -> None:
    _ensure(lab, place)
    guest = lab.guest(SPEC)
    assert guest.ask_for_address(lab.directory)["ip"] == "10.77.9.2"
    _ensure(lab, place, replace(SPEC, leases=(replace(SPEC.leases[0], ipv4="10.77.9.40"),)))
    assert guest.ask_for_address(lab.directory).get("ip") == "10.77.9.40"


def test_a_stranger_gets_no_address(lab: NetworkLab, place: NetworkPlace) -> None:
    _ensure(lab, place)
    assert lab.guest(SPEC, mac="52:54:00:00:00:aa").ask_for_address(lab.directory) == {}


@pytest.fixture
def guest(lab: NetworkLab, place: NetworkPlace) -> Guest:
    """A guest that has its address."""
    _ensure(lab, place)
    guest = lab.guest(SPEC)
    guest.set_address("10.77.9.2", "10.77.9.1")
    return guest


def test_a_guest_reaches_the_outside_under_the_address_of_its_node(lab: NetworkLab, guest: Guest) -> None:
    assert guest.pings("10.77.9.1")
    with listen(lab.outside, OUTSIDE_ADDRESS) as server:
        assert reaches(guest.namespace, server, OUTSIDE_ADDRESS) == NODE_OUTER_ADDRESS


def test_the_outside_cannot_open_a_connection_to_a_guest(lab: NetworkLab, guest: Guest) -> None:
    run_inside(lab.outside, "busybox", "ip", "route", "add", "10.77.9.0/24", "via", NODE_OUTER_ADDRESS)
    with listen(guest.namespace, "10.77.9.2") as server:
        assert reaches(lab.outside, server, "10.77.9.2") is None
        assert reaches(lab.node, server, "10.77.9.2") == "10.77.9.1", "its own host may"


def test_a_guest_reaches_no_service_of_its_host(lab: NetworkLab, guest: Guest) -> None:
    for address in ("10.77.9.1", NODE_OUTER_ADDRESS):
        with listen(lab.node, address) as server:
            assert reaches(guest.namespace, server, address) is None
    assert not guest.pings(NODE_OUTER_ADDRESS)


def test_a_guest_that_wears_a_foreign_address_does_not_get_out(lab: NetworkLab, guest: Guest) -> None:
    run_inside(lab.outside, "busybox", "ip", "route", "add", "10.77.200.0/24", "via", NODE_OUTER_ADDRESS)
    run_inside(guest.namespace, "busybox", "ip", "address", "add", "10.77.200.2/32", "dev", "eth0")
    found = run_inside(guest.namespace, "busybox", "ping", "-I", "10.77.200.2", "-c", "1", "-W", "1", OUTSIDE_ADDRESS)
    assert found.returncode != 0


def test_a_guest_does_not_reach_the_metadata_of_the_cloud_under_its_node(lab: NetworkLab, guest: Guest) -> None:
    run_inside(lab.outside, "busybox", "ip", "address", "add", "169.254.169.254/32", "dev", "eth0")
    run_inside(lab.node, "busybox", "ip", "route", "add", "169.254.169.254/32", "dev", "uplink")
    with listen(lab.outside, "169.254.169.254") as server:
        assert reaches(lab.node, server, "169.254.169.254") == NODE_OUTER_ADDRESS
        assert reaches(guest.namespace, server, "169.254.169.254") is None


def test_guests_of_one_network_reach_each_other(lab: NetworkLab, guest: Guest) -> None:
    other = lab.guest(SPEC, number=1, mac="52:54:00:00:00:03")
    other.set_address("10.77.9.3", "10.77.9.1")
    assert other.pings("10.77.9.2")


def test_a_port_tells_its_bridge(lab: NetworkLab, guest: Guest) -> None:
    assert inside(lab.node, lambda: port_of("v9s0n0")) == SPEC.bridge
    assert inside(lab.node, lambda: port_of("uplink")) is None
    assert inside(lab.node, lambda: port_of("v9s7n0")) is None


def test_the_bridge_keeps_its_mac_when_ports_come(lab: NetworkLab, place: NetworkPlace) -> None:
    _ensure(lab, place)
    before = _everything(lab, place)[2]
    lab.guest(SPEC, mac="02:00:00:00:00:01")  # lower than any other: what a bridge would take for its own
    assert _everything(lab, place)[2] == before


def test_a_second_call_changes_nothing(lab: NetworkLab, place: NetworkPlace) -> None:
    _ensure(lab, place)
    before = _everything(lab, place)
    assert _observe(lab, place) == []
    _ensure(lab, place)
    assert _everything(lab, place) == before


@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        (["nft", "flush", "chain", "inet", "vdc_lab", "v9br0_input"], "not as this stack writes them"),
        (["nft", "delete", "table", "inet", "vdc_lab"], "chains of network nw-lab are missing"),
        (["nft", "add", "rule", "inet", "vdc_lab", "v9br0_input", "accept"], "not as this stack writes them"),
        (["busybox", "ip", "link", "set", "v9br0", "down"], "is down"),
        (["busybox", "ip", "address", "flush", "dev", "v9br0"], "lacks the gateway's address"),
        (["busybox", "ip", "link", "delete", "v9br0"], "bridge v9br0 of network nw-lab is missing"),
        (["busybox", "sysctl", "-w", "net.ipv4.conf.v9br0.rp_filter=0"], "rp_filter is not 1"),
    ],
)
def test_what_somebody_broke_is_seen_and_healed(
    lab: NetworkLab, place: NetworkPlace, damage: list[str], seen: str
) -> None:
    _ensure(lab, place)
    assert run_inside(lab.node, *damage).returncode == 0
    assert any(seen in sentence for sentence in _observe(lab, place))
    _ensure(lab, place)
    assert _observe(lab, place) == []
    assert lab.guest(SPEC).ask_for_address(lab.directory).get("ip") == "10.77.9.2"


def _kill_dnsmasq(place: NetworkPlace) -> None:
    pid = _dnsmasq_pid(place)
    handle = os.pidfd_open(pid)
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    assert select.select([handle], [], [], 10)[0], "it did not end"
    os.close(handle)


def _lose(name: str) -> Callable[[NetworkPlace], None]:
    return lambda place: (place.run_dir / name).unlink()


@pytest.mark.parametrize(
    "damage", [_kill_dnsmasq, _lose("hosts"), _lose("told"), _lose("nft.json")], ids=["dead", "hosts", "told", "rules"]
)
def test_a_lost_server_or_file_is_seen_and_healed(
    lab: NetworkLab, place: NetworkPlace, damage: Callable[[NetworkPlace], None]
) -> None:
    _ensure(lab, place)
    damage(place)
    assert _observe(lab, place) != []
    _ensure(lab, place)
    assert _observe(lab, place) == []
    assert lab.guest(SPEC).ask_for_address(lab.directory).get("ip") == "10.77.9.2"


def test_a_server_whose_pid_file_was_lost_is_found_and_kept(lab: NetworkLab, place: NetworkPlace) -> None:
    _ensure(lab, place)
    pid = _dnsmasq_pid(place)
    (place.run_dir / "dnsmasq.pid").unlink()
    _ensure(lab, place)
    assert _dnsmasq_pid(place) == pid


def test_a_process_that_a_stale_pid_file_names_is_left_alone(lab: NetworkLab, place: NetworkPlace) -> None:
    with subprocess.Popen(["sleep", "600"]) as bystander:
        try:
            place.run_dir.mkdir(parents=True)
            (place.run_dir / "dnsmasq.pid").write_text(f"{bystander.pid}\n")
            _ensure(lab, place)
            assert _dnsmasq_pid(place) != bystander.pid
            (place.run_dir / "dnsmasq.pid").write_text(f"{bystander.pid}\n")
            inside(lab.node, lambda: network_absent(SPEC, place))
            assert bystander.poll() is None
            assert find_dnsmasq(place.run_dir) is None
        finally:
            bystander.terminate()


def test_several_processes_at_once_make_one_network_that_outlives_them(lab: NetworkLab, place: NetworkPlace) -> None:
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from pyroute2 import netns\n"
        "from hypervisor.bridges import NetworkPlace, ensure_network\n"
        "from hypervisor.contract import LeaseSpec, NetworkSpec\n"
        "namespace, spec, run_dir = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]\n"
        "spec['leases'] = tuple(LeaseSpec(**lease) for lease in spec['leases'])\n"
        "spec['dns'] = tuple(spec['dns'])\n"
        "netns.setns(namespace)\n"
        "ensure_network(NetworkSpec(**spec), NetworkPlace(Path(run_dir), 'vdc_lab'))\n"
    )
    argv = [sys.executable, "-c", program, lab.node, json.dumps(asdict(SPEC)), str(place.run_dir)]
    callers = [
        subprocess.Popen(argv, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    said = [caller.communicate(timeout=60)[1] for caller in callers]
    assert [caller.returncode for caller in callers] == [0, 0, 0, 0], said
    assert _observe(lab, place) == []
    serving = [path for path in Path("/proc").glob("[0-9]*/cmdline") if f"{place.run_dir}/dnsmasq.pid" in _read(path)]
    assert len(serving) == 1
    held = {str(entry.readlink()) for entry in (serving[0].parent / "fd").iterdir()}
    assert not any("lock" in path for path in held)


def test_a_log_over_its_limit_is_put_aside(lab: NetworkLab, place: NetworkPlace) -> None:
    _ensure(lab, place)
    with (place.run_dir / "dnsmasq.log").open("ab") as log:
        log.truncate(LOG_LIMIT_BYTES + 1)
    assert any("log" in sentence for sentence in _observe(lab, place))
    _ensure(lab, place)
    assert _observe(lab, place) == []
    assert lab.guest(SPEC).ask_for_address(lab.directory).get("ip") == "10.77.9.2"
    opened = {str(entry.readlink()) for entry in Path(f"/proc/{_dnsmasq_pid(place)}/fd").iterdir()}
    assert str(place.run_dir / "dnsmasq.log") in opened


@pytest.mark.parametrize("network", [SPEC, SPEC.uid], ids=["by spec", "by uid"])
def test_an_absent_network_leaves_nothing(lab: NetworkLab, place: NetworkPlace, network: NetworkSpec | str) -> None:
    before = _links(lab.node)
    _ensure(lab, place)
    inside(lab.node, lambda: network_absent(network, place))
    assert find_dnsmasq(place.run_dir) is None
    assert _links(lab.node) == before
    assert run_inside(lab.node, "nft", "list", "tables").stdout == ""
    assert not place.run_dir.exists()
    inside(lab.node, lambda: network_absent(network, place))


def test_two_networks_of_a_stack_live_and_go_apart(lab: NetworkLab, place: NetworkPlace) -> None:
    other = replace(SPEC, uid="nw-other", bridge="v9br1", ipv4_network="10.77.10.0/24", gateway="10.77.10.1")
    other = replace(other, leases=(LeaseSpec(mac="52:54:00:00:00:04", ipv4="10.77.10.2", hostname="other"),))
    other_place = lab.place(other.uid)
    _ensure(lab, place)
    _ensure(lab, other_place, other)
    assert _observe(lab, place) == []
    first, second = lab.guest(SPEC), lab.guest(other, number=1, mac="52:54:00:00:00:04")
    assert first.ask_for_address(lab.directory)["ip"] == "10.77.9.2"
    assert second.ask_for_address(lab.directory)["ip"] == "10.77.10.2"
    assert not first.pings("10.77.10.2")
    inside(lab.node, lambda: network_absent(SPEC, place))
    assert _observe(lab, other_place, other) == []


def test_a_foreign_interface_with_the_name_of_the_bridge_is_refused_and_left(
    lab: NetworkLab, place: NetworkPlace
) -> None:
    assert run_inside(lab.node, "busybox", "ip", "link", "add", SPEC.bridge, "type", "bridge").returncode == 0
    with pytest.raises(Permanent, match="is not the bridge of network nw-lab"):
        _ensure(lab, place)
    inside(lab.node, lambda: network_absent(SPEC, place))
    assert SPEC.bridge in _links(lab.node)


def test_a_node_that_forwards_nothing_is_told_so(lab: NetworkLab, place: NetworkPlace) -> None:
    lab.set_forwarding("0")
    with pytest.raises(Permanent, match="ip_forward is 0"):
        _ensure(lab, place)
    assert SPEC.bridge not in _links(lab.node)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
