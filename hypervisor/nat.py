"""The firewall of one network on a node: NAT to the outside, and the little that guests may ask of the host.

Each network has three base chains in its stack's own table `inet <nft_table>`, named after its bridge:

    <bridge>_input        guests → the host's own addresses: DHCP, ping of the gateway, answers; nothing else
    <bridge>_forward      guests → outside: yes; outside → guests: answers only; link-local (metadata of a cloud): no
    <bridge>_postrouting  what leaves for the outside wears the host's address

They are replaced in one transaction and touch no other table. That has one consequence: netfilter lets every table
have its say, and `drop` is final, so a host whose own firewall (ufw, firewalld, Docker) drops forwarded packets keeps
dropping ours too. `dropping_chains` finds such chains, so that the operator can be told.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from pathlib import Path
from typing import Any

import structlog

from hypervisor.commands import run
from hypervisor.contract import NetworkSpec, Permanent, Transient, Watch
from hypervisor.whole_files import write_whole

log = structlog.get_logger()

_RECORD = "nft.json"


def chain_names(bridge: str) -> tuple[str, ...]:
    return (f"{bridge}_input", f"{bridge}_forward", f"{bridge}_postrouting")


def render_rules(spec: NetworkSpec, table: str) -> str:
    """The nft script that puts this network's chains in place, whatever they were before."""
    bridge, gateway = spec.bridge, spec.gateway
    network = ipaddress.ip_network(spec.ipv4_network)
    input_chain, forward_chain, postrouting_chain = chain_names(bridge)
    return f"""\
add table inet {table}
{_emptied(table, input_chain)}
add chain inet {table} {input_chain} {{ type filter hook input priority filter; policy accept; }}
add rule inet {table} {input_chain} iifname != "{bridge}" accept
add rule inet {table} {input_chain} ct state established,related accept
add rule inet {table} {input_chain} udp sport 68 udp dport 67 ip daddr {{ 255.255.255.255, {gateway} }} accept
add rule inet {table} {input_chain} ip saddr {network} ip daddr {gateway} icmp type echo-request accept
add rule inet {table} {input_chain} drop
{_emptied(table, forward_chain)}
add chain inet {table} {forward_chain} {{ type filter hook forward priority filter; policy accept; }}
add rule inet {table} {forward_chain} iifname "{bridge}" oifname "{bridge}" accept
add rule inet {table} {forward_chain} iifname "{bridge}" ip saddr != {network} drop
add rule inet {table} {forward_chain} iifname "{bridge}" ip daddr 169.254.0.0/16 drop
add rule inet {table} {forward_chain} iifname "{bridge}" meta nfproto ipv6 drop
add rule inet {table} {forward_chain} oifname "{bridge}" ct state established,related accept
add rule inet {table} {forward_chain} oifname "{bridge}" drop
{_emptied(table, postrouting_chain)}
add chain inet {table} {postrouting_chain} {{ type nat hook postrouting priority srcnat; policy accept; }}
add rule inet {table} {postrouting_chain} ip saddr {network} oifname != "{bridge}" masquerade
"""


def _emptied(table: str, chain: str) -> str:
    # Adding first makes the deletion hold on a clean host; deleting first makes room for a chain of another kind.
    return f"add chain inet {table} {chain}\nflush chain inet {table} {chain}\ndelete chain inet {table} {chain}"


def rules_missing(spec: NetworkSpec, table: str, run_dir: Path) -> list[str]:
    """What is wrong with this network's rules, as sentences. Empty: they are as we left them."""
    present = _chains(table, spec.bridge)
    if sorted(name for name in chain_names(spec.bridge) if name in present) != sorted(chain_names(spec.bridge)):
        return [f"firewall chains of network {spec.uid} are missing in table inet {table}"]
    # nft prints rules in words of its own, so they are compared with what it printed right after we wrote them.
    if _read_record(run_dir) != {"asked": _digest(render_rules(spec, table)), "printed": _digest(present)}:
        return [f"firewall rules of network {spec.uid} in table inet {table} are not as this stack writes them"]
    return []


def ensure_rules(spec: NetworkSpec, table: str, run_dir: Path, watch: Watch | None = None) -> None:
    """Put the rules in place; does not touch the firewall when they are there already."""
    if not rules_missing(spec, table, run_dir):
        return
    script = render_rules(spec, table)
    _apply(script, f"The firewall rules of network {spec.uid}", watch)
    record = {"asked": _digest(script), "printed": _digest(_chains(table, spec.bridge))}
    write_whole(run_dir / _RECORD, json.dumps(record))
    log.info("the firewall rules are written", network=spec.uid, table=table)


def remove_rules(bridge: str, table: str, watch: Watch | None = None) -> None:
    """Take this network's chains away, and the table with the last of them. Nothing there: nothing to do."""
    listed = _table(table)
    if listed is None:
        return
    names = {_name(item) for item in listed}
    ours = [name for name in chain_names(bridge) if name in names]
    others = names - set(ours) - {None}
    script = "".join(f"flush chain inet {table} {name}\ndelete chain inet {table} {name}\n" for name in ours)
    if not others:
        script += f"delete table inet {table}\n"
    if script:
        _apply(script, f"Removing the firewall rules of bridge {bridge}", watch)


def dropping_chains() -> list[str]:
    """Chains that drop by policy where guests' packets pass: "ip filter FORWARD (forward)". None of them is ours."""
    listed = run(["nft", "-j", "list", "chains"])
    if listed.returncode != 0:
        raise Transient(f"nft could not list the chains of this host: {listed.stderr.strip()[:500]}")
    chains = (item["chain"] for item in json.loads(listed.stdout)["nftables"] if "chain" in item)
    return [
        f"{chain['family']} {chain['table']} {chain['name']} ({chain['hook']})"
        for chain in chains
        if chain.get("policy") == "drop"
        and chain.get("hook") in ("input", "forward")
        and chain["family"] in ("inet", "ip")
    ]


def _apply(script: str, what: str, watch: Watch | None) -> None:
    done = run(["nft", "-f", "-"], stdin=script, watch=watch)
    if done.returncode != 0:
        raise Permanent(
            f"{what} could not be written: nft said: {done.stderr.strip()[:500]}",
            advice="Look whether this kernel has nftables with NAT: nft list ruleset.",
        )


def _table(table: str) -> list[dict[str, Any]] | None:
    """What nft prints of the table, without handles; None when there is no such table."""
    listed = run(["nft", "-j", "list", "table", "inet", table])
    if listed.returncode != 0:
        if "No such file or directory" in listed.stderr:
            return None
        raise Transient(f"nft could not list table inet {table}: {listed.stderr.strip()[:500]}")
    return [_without_handles(item) for item in json.loads(listed.stdout)["nftables"]]


def _chains(table: str, bridge: str) -> dict[str, list[dict[str, Any]]]:
    """This network's chains as nft prints them: name → the chain and its rules."""
    names = chain_names(bridge)
    chains: dict[str, list[dict[str, Any]]] = {}
    for item in _table(table) or []:
        if (name := _name(item)) in names:
            chains.setdefault(name, []).append(item)
    return chains


def _name(item: dict[str, Any]) -> str | None:
    """The chain, set or other thing that an item of nft's list belongs to; None for the table and nft's greeting."""
    if "rule" in item:
        return str(item["rule"]["chain"])
    kind, body = next(iter(item.items()))
    return None if kind in ("metainfo", "table") else str(body["name"])


def _without_handles(item: dict[str, Any]) -> dict[str, Any]:
    return {kind: {key: value for key, value in body.items() if key != "handle"} for kind, body in item.items()}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read_record(run_dir: Path) -> dict[str, str] | None:
    try:
        return json.loads((run_dir / _RECORD).read_text())
    except (FileNotFoundError, ValueError):
        return None
