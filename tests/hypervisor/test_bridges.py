"""What is written for nft and dnsmasq, as text; what they do with it is tested live."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.bridge_link import mac_of
from hypervisor.bridges import NetworkPlace, ensure_network, observe_network
from hypervisor.contract import LeaseSpec, NetworkSpec, Permanent
from hypervisor.dhcp import name_servers, render_argv, render_hosts, render_options
from hypervisor.nat import chain_names, render_rules

SPEC = NetworkSpec(
    uid="nw-demo1",
    bridge="v0br0",
    ipv4_network="10.77.0.0/24",
    gateway="10.77.0.1",
    leases=(
        LeaseSpec(mac="52:54:00:00:00:0a", ipv4="10.77.0.10", hostname="web"),
        LeaseSpec(mac="52:54:00:00:00:02", ipv4="10.77.0.2", hostname="db"),
    ),
)


def test_the_hosts_file_has_a_line_per_lease_in_the_order_of_addresses() -> None:
    assert render_hosts(SPEC) == "52:54:00:00:00:02,10.77.0.2,db\n52:54:00:00:00:0a,10.77.0.10,web\n"


@pytest.mark.parametrize("name", ["12", "7d", "3600s", "infinite", "ignore", "a,b", "a\nb", "", "set:x", "a b", "ä"])
def test_a_name_that_dnsmasq_would_take_for_something_else_is_left_out(name: str) -> None:
    lease = LeaseSpec(mac="52:54:00:00:00:02", ipv4="10.77.0.2", hostname=name)
    assert render_hosts(replace(SPEC, leases=(lease,))) == "52:54:00:00:00:02,10.77.0.2\n"


@given(st.text())
def test_no_name_makes_a_second_line_or_field(name: str) -> None:
    lease = LeaseSpec(mac="52:54:00:00:00:02", ipv4="10.77.0.2", hostname=name)
    text = render_hosts(replace(SPEC, leases=(lease,)))
    assert len(text.splitlines()) == 1
    assert text.count(",") <= 2


@pytest.mark.parametrize(
    ("lease", "word"),
    [
        (LeaseSpec(mac="52:54:00:00:00", ipv4="10.77.0.2", hostname="a"), "MAC"),
        (LeaseSpec(mac="52:54:00:00:00:02\n", ipv4="10.77.0.2", hostname="a"), "MAC"),
        (LeaseSpec(mac="52:54:00:00:00:02", ipv4="10.78.0.2", hostname="a"), "not in 10.77.0.0/24"),
        (LeaseSpec(mac="52:54:00:00:00:02", ipv4="10.77.0", hostname="a"), "no IPv4 address"),
    ],
)
def test_a_lease_that_cannot_be_is_refused_with_its_fault(lease: LeaseSpec, word: str) -> None:
    with pytest.raises(Permanent, match=word):
        render_hosts(replace(SPEC, leases=(lease,)))


def test_the_options_name_the_router_and_the_name_servers_of_the_network_before_those_of_the_host() -> None:
    own = replace(SPEC, dns=("192.0.2.1", "192.0.2.2"))
    host = ("203.0.113.53",)
    assert render_options(own, host) == "option:router,10.77.0.1\noption:dns-server,192.0.2.1,192.0.2.2\n"
    assert render_options(SPEC, host) == "option:router,10.77.0.1\noption:dns-server,203.0.113.53\n"
    assert render_options(SPEC) == "option:router,10.77.0.1\n"


def test_name_servers_that_only_the_host_reaches_are_passed_over(tmp_path: Path) -> None:
    stub, upstream, missing = tmp_path / "stub", tmp_path / "upstream", tmp_path / "missing"
    stub.write_text("# by systemd-resolved\nnameserver 127.0.0.53\noptions edns0\nnameserver ::1\nnameserver\n")
    upstream.write_text("search example.org\nnameserver fe80::1\nnameserver 192.0.2.53\nnameserver 192.0.2.54\n")
    assert name_servers((missing, stub, upstream)) == ("192.0.2.53", "192.0.2.54")
    assert name_servers((stub,)) == ()


def test_a_new_bridge_asks_for_a_new_dhcp_server_and_new_leases_do_not() -> None:
    run_dir = Path("/run/vdc/networks/nw-demo1")
    assert render_argv(SPEC, run_dir, 7) != render_argv(SPEC, run_dir, 8)
    assert render_argv(SPEC, run_dir, 7) == render_argv(replace(SPEC, leases=(), dns=("192.0.2.1",)), run_dir, 7)


def test_the_dhcp_server_serves_its_bridge_only_and_no_names() -> None:
    argv = render_argv(SPEC, Path("/run/vdc/networks/nw-demo1"), 7)
    assert {"--port=0", "--interface=v0br0", "--bind-interfaces", "--except-interface=lo", "--user=nobody"} <= set(argv)
    assert "--dhcp-range=set:bridge7,10.77.0.0,static,255.255.255.0,1h" in argv
    assert "--pid-file=/run/vdc/networks/nw-demo1/dnsmasq.pid" in argv


def test_dnsmasq_finds_no_fault_in_its_options(tmp_path: Path) -> None:
    for name, text in (("hosts", render_hosts(SPEC)), ("options", render_options(SPEC, ("192.0.2.1",)))):
        (tmp_path / name).write_text(text)
    checked = subprocess.run([*render_argv(SPEC, tmp_path, 7), "--test"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_rules_touch_only_the_chains_of_this_network() -> None:
    for line in render_rules(SPEC, "vdc_demo").splitlines():
        words = line.split()
        assert words[1:4] in (
            ["table", "inet", "vdc_demo"],
            ["chain", "inet", "vdc_demo"],
            ["rule", "inet", "vdc_demo"],
        )
        assert words[1] == "table" or words[4] in chain_names("v0br0")


def test_what_leaves_the_network_wears_the_address_of_the_host() -> None:
    assert 'ip saddr 10.77.0.0/24 oifname != "v0br0" masquerade' in render_rules(SPEC, "vdc_demo")


def test_guests_may_ask_the_host_for_an_address_and_an_echo_and_nothing_else() -> None:
    lines = [
        line for line in render_rules(SPEC, "vdc_demo").splitlines() if line.startswith("add rule") and "_input" in line
    ]
    assert [line.rsplit(maxsplit=1)[-1] for line in lines] == ["accept"] * 4 + ["drop"]
    assert "dport 67" in lines[2]
    assert "echo-request" in lines[3]


def test_the_bridge_has_a_mac_of_its_own_that_never_changes() -> None:
    assert mac_of("nw-demo1", "vdc_vdc") == mac_of("nw-demo1", "vdc_vdc")
    others = {mac_of("nw-demo2", "vdc_vdc"), mac_of("nw-demo1", "vdc_other")}
    assert mac_of("nw-demo1", "vdc_vdc") not in others
    assert mac_of("nw-demo1", "vdc_vdc").startswith("02:")


@pytest.mark.parametrize(
    "wrong",
    [
        {"bridge": 'br0" drop'},
        {"bridge": "a-name-that-is-too-long"},
        {"gateway": "10.78.0.1"},
        {"gateway": "gateway"},
        {"ipv4_network": "10.77.0.1/24"},
        {"dns": ("one.one.one.one",)},
    ],
)
def test_a_spec_with_a_wrong_word_is_refused_before_anything_is_made(wrong: dict[str, object], tmp_path: Path) -> None:
    place = NetworkPlace(run_dir=tmp_path / "nw-demo1", nft_table="vdc_demo")
    for act in (ensure_network, observe_network):
        with pytest.raises(Permanent):
            act(replace(SPEC, **wrong), place)
    assert not place.run_dir.exists()


def test_a_table_with_a_wrong_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="cannot name a firewall table"):
        ensure_network(SPEC, NetworkPlace(run_dir=tmp_path / "nw-demo1", nft_table="vdc-demo; flush ruleset"))
