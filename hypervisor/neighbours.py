"""Which addresses the network cards beside this machine are known to use."""

from __future__ import annotations

from pathlib import Path

ARP = Path("/proc/net/arp")


def ipv4_of(mac: str, bridge: str) -> str:
    """The IPv4 address that a card on the bridge was last heard with; "" if it was not heard."""
    for line in ARP.read_text().splitlines()[1:]:
        address, _, _, heard_mac, _, device = line.split()
        if (heard_mac.lower(), device) == (mac.lower(), bridge):
            return address
    return ""
