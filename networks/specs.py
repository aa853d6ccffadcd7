"""A network in the words of a node."""

from __future__ import annotations

from hypervisor.contract import LeaseSpec, NetworkSpec
from networks.models import Network


def network_spec(network: Network) -> NetworkSpec:
    """The network with all its leases as they stand now."""
    leases = network.leases.order_by("id").values_list("mac", "ipv4", "hostname")
    return NetworkSpec(
        uid=network.uid,
        bridge=network.bridge,
        ipv4_network=network.ipv4_network,
        gateway=network.gateway,
        dns=tuple(network.dns),
        leases=tuple(LeaseSpec(mac, ipv4, hostname) for mac, ipv4, hostname in leases),
    )
