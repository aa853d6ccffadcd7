"""The bridge of one network: a link of this node with a fixed MAC, the gateway's address and careful per-link settings.

The MAC is derived from stack table and network. So it stays the same when ports come and go and when the bridge is
made anew (guests keep their ARP entries), and it proves that a bridge of that name is ours: it is there from the
moment the link is.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from hypervisor.contract import NetworkSpec, Permanent, Transient

if TYPE_CHECKING:
    from pyroute2 import IPRoute

log = structlog.get_logger()

# Relative to /proc/sys/net/<family>/conf/<bridge>/; a family that the kernel lacks needs no setting.
_SETTINGS = (
    ("ipv4/conf/{bridge}/forwarding", "1"),
    ("ipv4/conf/{bridge}/rp_filter", "1"),  # a guest may not wear an address from elsewhere
    ("ipv4/conf/{bridge}/arp_ignore", "1"),  # guests learn no other address of the host
    ("ipv4/conf/{bridge}/accept_redirects", "0"),
    ("ipv4/conf/{bridge}/send_redirects", "0"),
    ("ipv6/conf/{bridge}/disable_ipv6", "1"),  # no IPv6 door into the host beside the IPv4 rules
)
_SYSTEM = Path("/proc/sys/net")


def mac_of(network_uid: str, table: str) -> str:
    """The MAC of a network's bridge: locally administered, unicast."""
    digest = hashlib.sha256(f"{table}/{network_uid}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in b"\x02" + digest[:5])


def forwards_packets() -> bool:
    return (_SYSTEM / "ipv4/ip_forward").read_text().strip() != "0"


def bridge_missing(spec: NetworkSpec, table: str) -> list[str]:
    """What is wrong with the bridge, as sentences. Empty: it is as it shall be. Raises Permanent for a foreign link."""
    with _netlink(f"looking at bridge {spec.bridge}") as netlink:
        index = _our_index(netlink, spec, table)
        if index is None:
            return [f"bridge {spec.bridge} of network {spec.uid} is missing"]
        missing = []
        if not _is_up(netlink, index):
            missing.append(f"bridge {spec.bridge} is down")
        if not _has_gateway(netlink, index, spec):
            missing.append(f"bridge {spec.bridge} lacks the gateway's address {spec.gateway}")
    missing += [f"{path} is not {value}" for path, value in _wrong_settings(spec.bridge)]
    return missing


def ensure_bridge(spec: NetworkSpec, table: str) -> int:
    """Make what is missing of the bridge; returns its interface index. Raises Permanent for a foreign link."""
    with _netlink(f"making bridge {spec.bridge}") as netlink:
        index = _our_index(netlink, spec, table)
        if index is None:
            # No spanning tree and no delay: the first packet of a guest that was just plugged goes through.
            netlink.link(
                "add",
                ifname=spec.bridge,
                kind="bridge",
                address=mac_of(spec.uid, table),
                br_stp_state=0,
                br_forward_delay=0,
            )
            log.info("the bridge is made", network=spec.uid, bridge=spec.bridge)
            index = _our_index(netlink, spec, table)
            if index is None:
                raise Transient(f"Bridge {spec.bridge} vanished while it was made.")
        # Before the link is up: a bridge that never had IPv6 or redirects on.
        for path, value in _wrong_settings(spec.bridge):
            _write_setting(path, value)
        if not _has_gateway(netlink, index, spec):
            network = ipaddress.ip_network(spec.ipv4_network)
            netlink.addr(
                "add",
                index=index,
                address=spec.gateway,
                prefixlen=network.prefixlen,
                broadcast=str(network.broadcast_address),
            )
        if not _is_up(netlink, index):
            netlink.link("set", index=index, state="up")
    return index


def remove_bridge(network_uid: str, bridge: str, table: str) -> None:
    """Delete the bridge if it is this network's; a link of that name that is not ours stays as it is."""
    with _netlink(f"removing bridge {bridge}") as netlink:
        for index in netlink.link_lookup(ifname=bridge):
            link = netlink.get_links(index)[0]
            if _is_bridge(link) and link.get("address") == mac_of(network_uid, table):
                netlink.link("del", index=index)


def bridge_index(bridge: str) -> int | None:
    """The interface index of a link; None when there is none."""
    with _netlink(f"looking for {bridge}") as netlink:
        found = netlink.link_lookup(ifname=bridge)
        return int(found[0]) if found else None


def port_of(host_interface: str) -> str | None:
    """The name of the bridge that an interface is plugged into; None when it is in none or does not exist."""
    with _netlink(f"looking at interface {host_interface}") as netlink:
        found = netlink.link_lookup(ifname=host_interface)
        if not found:
            return None
        above = netlink.get_links(found[0])[0].get("master")
        if above is None:
            return None
        link = netlink.get_links(above)[0]
        return link.get("ifname") if _is_bridge(link) else None


@contextmanager
def _netlink(doing: str) -> Iterator[IPRoute]:
    """A netlink socket; the kernel's refusals become faults of the contract."""
    from pyroute2 import IPRoute  # here, for it takes 9 MiB of memory: a lane that makes no links goes without
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as netlink:
            yield netlink
    except NetlinkError as fault:
        if fault.code == 1:  # EPERM
            raise Permanent(f"This process may not change links ({doing}).", advice="Run the node as root.") from fault
        raise Transient(f"The kernel refused while {doing}: {fault}") from fault


def _our_index(netlink: IPRoute, spec: NetworkSpec, table: str) -> int | None:
    found = netlink.link_lookup(ifname=spec.bridge)
    if not found:
        return None
    link = netlink.get_links(found[0])[0]
    if not _is_bridge(link) or link.get("address") != mac_of(spec.uid, table):
        raise Permanent(
            f"Interface {spec.bridge} exists on this node and is not the bridge of network {spec.uid} "
            f"(that one has MAC {mac_of(spec.uid, table)}, this one {link.get('address')}).",
            advice=f"Find out what made it: ip -d link show {spec.bridge}.",
        )
    return int(link["index"])


def _is_bridge(link) -> bool:
    return link.get(("linkinfo", "kind")) == "bridge"


def _is_up(netlink: IPRoute, index: int) -> bool:
    return netlink.get_links(index)[0].get("flags", 0) & 1 == 1


def _has_gateway(netlink: IPRoute, index: int, spec: NetworkSpec) -> bool:
    prefix = ipaddress.ip_network(spec.ipv4_network).prefixlen
    return any(
        address.get("local") == spec.gateway and address["prefixlen"] == prefix
        for address in netlink.get_addr(index=index, family=2)
    )


def _wrong_settings(bridge: str) -> list[tuple[Path, str]]:
    wanted = ((_SYSTEM / path.format(bridge=bridge), value) for path, value in _SETTINGS)
    return [(path, value) for path, value in wanted if path.exists() and path.read_text().strip() != value]


def _write_setting(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as fault:
        raise Permanent(
            f"{path} could not be set to {value}: {fault.strerror}.", advice="Run the node as root."
        ) from fault
