"""Which columns the list of each noun has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cli.render.table import Column
from cli.render.units import between, clock, duration, memory, size, when
from cli.render.words import state_style, word

Item = dict[str, Any]


def _value(key: str) -> Callable[[Item], str]:
    return lambda item: word(item.get(key))


def _state(item: Item) -> str:
    return state_style(item.get("state") or item.get("status"))


def _used(used: str, total: str, show: Callable[[Any], str]) -> Callable[[Item], str]:
    return lambda item: f"{show(item.get(used))} of {show(item.get(total))}"


def _took(operation: Item) -> str:
    seconds = between(operation.get("started_at"), operation.get("ended_at"))
    return "-" if seconds is None else duration(seconds)


def _subject(operation: Item) -> str:
    return word((operation.get("subject") or {}).get("id"))


def _hypervisors(node: Item) -> str:
    """ "kvm (tcg), lxc": emulation is slow enough to be said in the list."""
    slow = node.get("acceleration") == "tcg"
    return word([f"{kind} (tcg)" if slow and kind == "kvm" else kind for kind in node.get("hypervisors") or []])


def _made_of(stray: Item) -> str:
    """ "2 vCPU, 512 MiB, vol-k2x8m4n1 4.0 GiB", as far as its node can tell."""
    facts = stray.get("facts") or {}
    if "disks" not in facts:
        return size(facts["size_bytes"]) if "size_bytes" in facts else "-"
    disks = [f"{word(disk.get('uid'))} {size(disk.get('size_bytes'))}" for disk in facts["disks"]]
    return ", ".join([f"{word(facts.get('vcpus'))} vCPU", memory(facts.get("memory_mib")), *disks])


_ID = Column("ID", _value("id"))
_NAME = Column("NAME", _value("name"))
_STATE = Column("STATE", _value("state"), style=_state)
_CREATED = Column("CREATED", lambda item: when(item.get("created_at")), spare=1)

INSTANCES = (
    _ID,
    _NAME,
    _STATE,
    Column("ADDRESSES", _value("addresses")),
    Column("IMAGE", _value("image"), spare=4),
    Column("NODE", _value("node"), spare=3),
    Column("VCPUS", _value("vcpus"), right=True, spare=2),
    Column("MEMORY", lambda item: memory(item.get("memory_mib")), right=True, spare=2),
    _CREATED,
)
IMAGES = (
    _ID,
    _NAME,
    _STATE,
    Column("KIND", _value("hypervisor")),
    Column("ARCH", _value("arch"), spare=2),
    Column("SIZE", lambda item: size(item.get("size_bytes")), right=True),
    Column("STORED", lambda item: size(item.get("stored_size_bytes")), right=True, spare=3),
    Column("PUBLIC", _value("is_public"), spare=4),
    _CREATED,
)
OPERATIONS = (
    _ID,
    Column("VERB", _value("verb")),
    Column("SUBJECT", _subject),
    _STATE,
    Column("ASKED BY", _value("requested_by"), spare=3),
    Column("TOOK", _took, right=True, spare=2),
    _CREATED,
)
NODES = (
    _ID,
    _NAME,
    Column("STATUS", _value("status"), style=_state),
    Column("KINDS", _hypervisors),
    Column("ARCH", _value("arch"), spare=5),
    Column("VCPUS", _used("vcpus_used", "vcpus", str), right=True, spare=1),
    Column("MEMORY", _used("memory_mib_used", "memory_mib", memory), right=True, spare=2),
    Column("DISK", _used("disk_bytes_used", "disk_bytes", size), right=True, spare=3),
    Column("HEARTBEAT", lambda item: when(item.get("heartbeat_at")), spare=4),
)
STRAYS = (
    Column("STRAY", _value("name")),
    Column("KIND", lambda item: f"{word(item.get('kind'))} ({word(item.get('hypervisor'))})"),
    Column("NODE", _value("node")),
    _STATE,
    Column("OBSERVED", _value("observed"), spare=1),
    Column("MADE OF", _made_of, spare=3),
    Column("SEEN", lambda item: when(item.get("seen_at")), spare=2),
)
TRASH = (
    Column("ENTRY", _value("id")),
    Column("ACCOUNT", _value("account"), spare=1),
    Column("ON DISK", lambda item: size(item.get("disk_bytes")), right=True),
    Column("SIZE", lambda item: size(item.get("volume_size_bytes")), right=True, spare=3),
    Column("WHY", _value("reason"), spare=2),
    Column("DISCARDED", lambda item: when(item.get("discarded_at")), spare=4),
    Column("EXPIRES", lambda item: clock(item.get("expires_at"), day_of=item.get("discarded_at"))),
)
VOLUMES = (
    _ID,
    _STATE,
    Column("SIZE", lambda item: size(item.get("size_bytes")), right=True),
    Column("INSTANCE", _value("instance")),
    Column("BOOT", _value("boot"), spare=2),
    Column("IMAGE", _value("image"), spare=3),
    Column("NODE", _value("node"), spare=4),
    _CREATED,
)
NETWORKS = (
    _ID,
    _NAME,
    Column("NETWORK", _value("ipv4_network")),
    Column("GATEWAY", _value("gateway"), spare=2),
    Column("LEASED", _value("leases_used"), right=True),
    Column("FREE", _value("leases_free"), right=True),
)
KEYS = (_ID, _NAME, Column("FINGERPRINT", _value("fingerprint")), _CREATED)
