"""Lease addresses: pick free ones, insert them under their unique constraints, pick again if someone was faster."""

from __future__ import annotations

import ipaddress
import secrets

from django.db import connection

from core.errors import Conflict
from networks.models import Lease, Network

TRIES = 50
TRIES_AT_RANDOM = 5
ROOMY = 1024  # addresses
_INSERT = """
    INSERT INTO networks_lease (network_id, ipv4, mac, hostname, holder) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT DO NOTHING RETURNING id, created_at
"""


def lease(network: Network, *, holder: str, hostname: str) -> Lease:
    """A free IPv4 address and a random MAC of QEMU's range. Conflict "no_address" when the network is full.

    The lowest; in a roomy network first some at random, for there many who ask at once would wait for each other.
    """
    for number in range(TRIES):
        at_random = number < TRIES_AT_RANDOM and usable_addresses(network) > ROOMY
        lease = Lease(
            network=network,
            ipv4=_any(network) if at_random else _lowest_free(network),
            mac=_random_mac(),
            hostname=hostname,
            holder=holder,
        )
        if _is_ours(lease):
            return lease
    raise Conflict(f"The free addresses of {network} were taken by others each time; try again.", code="no_address")


def _is_ours(lease: Lease) -> bool:
    """Insert it, unless its address or its MAC is taken: then nothing happens, and the transaction goes on."""
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, [lease.network_id, lease.ipv4, lease.mac, lease.hostname, lease.holder])
        inserted = cursor.fetchone()
    if inserted is not None:
        lease.pk, lease.created_at = inserted
    return inserted is not None


def lease_again(network: Network, *, holder: str, hostname: str, mac: str, ipv4: str = "") -> Lease:
    """A lease for a card that is there already, with its own MAC, and with its address if that is free.

    Conflict "mac_taken" or "no_address".
    """
    if Lease.objects.filter(mac=mac).exists():
        raise Conflict(f"The MAC address {mac} is leased to another network card.", code="mac_taken")
    free = ipv4 and _is_usable(network, ipv4) and not network.leases.filter(ipv4=ipv4).exists()
    return Lease.objects.create(
        network=network, ipv4=ipv4 if free else _lowest_free(network), mac=mac, hostname=hostname, holder=holder
    )


def _is_usable(network: Network, ipv4: str) -> bool:
    addresses = ipaddress.IPv4Network(network.ipv4_network)
    ends = (addresses.network_address, addresses.broadcast_address, ipaddress.IPv4Address(network.gateway))
    return ipaddress.IPv4Address(ipv4) in addresses and ipaddress.IPv4Address(ipv4) not in ends


def _lowest_free(network: Network) -> str:
    taken = set(network.leases.values_list("ipv4", flat=True)) | {str(network.gateway)}
    for address in ipaddress.IPv4Network(network.ipv4_network).hosts():
        if str(address) not in taken:
            return str(address)
    raise Conflict(f"{network} has no free address left.", code="no_address")


def _any(network: Network) -> str:
    addresses = ipaddress.IPv4Network(network.ipv4_network)
    while True:
        address = addresses[secrets.randbelow(addresses.num_addresses - 2) + 1]
        if str(address) != str(network.gateway):
            return str(address)


def _random_mac() -> str:
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3))


def release(*, holder: str) -> None:
    """Give back what a vif holds; twice is fine."""
    Lease.objects.filter(holder=holder).delete()


def usable_addresses(network: Network) -> int:
    """How many addresses guests can have: all but network, broadcast and gateway."""
    return max(ipaddress.IPv4Network(network.ipv4_network).num_addresses - 3, 0)
