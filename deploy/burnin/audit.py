"""Looks for what has no owner, and for states that are not true: what the rows believe beside what is really there.

Run as `python -m deploy.burnin.audit node` in the mount namespace of a stack that is at rest, and as `… fleet` outside
of it, where its fake nodes live; prints a JSON list of findings, `{"what": …, "name": …, "why": …}`.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Finding:
    what: str
    name: str
    why: str


def audit(part: str) -> list[Finding]:
    """Everything that should not be. The stack must be at rest: no operation open."""
    return [finding for look in LOOKS[part] for finding in look()]


# --- the record by itself ------------------------------------------------------------------------------------------


def moving_states() -> Iterator[Finding]:
    """A moving state needs an open operation."""
    from instances.models import Instance
    from operations.models import OperationSubject
    from operations.states import Hold
    from volumes.models import BackupObject, Image, Volume

    held = set(OperationSubject.objects.exclude(hold=Hold.CLOSED).values_list("uid", flat=True))
    for model in (Instance, Volume, Image, BackupObject):
        for uid, state in model.objects.filter(state__in=model.MOVING).values_list("uid", "state"):
            if uid not in held and not _awaits_content(model, uid):
                yield Finding("state", uid, f"is {state} though no operation moves it")
    ended = OperationSubject.objects.exclude(hold=Hold.CLOSED).exclude(operation__ended_at=None)
    for subject in ended.select_related("operation"):
        yield Finding("lock", subject.uid, f"is still held by {subject.operation.uid}, which has ended")


def _awaits_content(model: type, uid: str) -> bool:
    """A backup object without content waits for an upload, not for an operation."""
    return model.__name__ == "BackupObject" and not model.objects.get(uid=uid).images.exists()


def room() -> Iterator[Finding]:
    """What nodes have given away is what instances and volumes hold, recounted."""
    from django.db.models import Sum

    from hypervisor.models import NodeRoom
    from instances.models import Instance
    from volumes.models import Volume

    for row in NodeRoom.objects.select_related("node"):
        guests = Instance.objects.filter(node=row.node, room_held=True).aggregate(
            vcpus=Sum("vcpus", default=0), memory_mib=Sum("memory_mib", default=0)
        )
        disk_bytes = Volume.objects.filter(node=row.node, room_held=True).aggregate(it=Sum("size_bytes", default=0))
        for name, booked, counted in (
            ("vcpus", row.vcpus_used, guests["vcpus"]),
            ("memory_mib", row.memory_mib_used, guests["memory_mib"]),
            ("disk_bytes", row.disk_bytes_used, disk_bytes["it"]),
        ):
            if booked != counted:
                yield Finding("room", f"{row.node.uid} {name}", f"{booked} are taken by the book, {counted} are held")
    for instance in Instance.objects.exclude(terminated_at=None).filter(room_held=True):
        yield Finding("room", instance.uid, "is terminated and still holds its room")
    for volume in Volume.objects.filter(state="deleted", room_held=True):
        yield Finding("room", volume.uid, "is deleted and still holds its room")


def addresses() -> Iterator[Finding]:
    """Each lease is held by a network card of a live instance, and live instances have theirs."""
    from instances.models import Vif
    from networks.models import Lease

    holders = {vif.uid: vif for vif in Vif.objects.select_related("instance")}
    for lease in Lease.objects.all():
        vif = holders.get(lease.holder)
        if vif is None or vif.instance.state == "terminated":
            yield Finding("address", lease.ipv4, f"is leased to {lease.holder}, whose instance is gone")
    for vif in holders.values():
        if vif.instance.state != "terminated" and vif.lease_id is None:
            yield Finding("address", vif.uid, f"of {vif.instance.uid} ({vif.instance.state}) has none")
    for vif in holders.values():
        if vif.instance.state == "terminated" and vif.instance.slot is not None:
            yield Finding("slot", vif.instance.uid, "is terminated and still has a slot")


# --- files ---------------------------------------------------------------------------------------------------------


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*") if path.name != "lost+found") if directory.is_dir() else []


def temporary_files() -> Iterator[Finding]:
    from hypervisor import local

    for root in (local.node_dir(), local.storage_dir()):
        for directory, below, names in os.walk(root):
            below[:] = [name for name in below if not _is_mounted(Path(directory) / name)]
            for name in (*names, *below):
                if name.endswith((".part", ".new")) or name.startswith(".forgotten-"):
                    yield Finding("file", f"{directory}/{name}", "is a temporary file that nobody works on")


def _is_mounted(path: Path) -> bool:
    return path.is_mount()


def volume_files() -> Iterator[Finding]:
    """One whole file with its receipt for each volume that is whole by the record, and no other."""
    from hypervisor import local, receipts
    from volumes.models import Volume

    root = local.node_dir() / "volumes"
    rows = {volume.uid: volume for volume in Volume.objects.filter(node=local.this_node())}
    found: dict[str, list[Path]] = {}
    for path in _files(root):
        uid = path.name.partition(".")[0]
        found.setdefault(uid, []).append(path)
    for uid, paths in found.items():
        names = ", ".join(path.name for path in paths)
        row = rows.get(uid)
        disks = [path for path in paths if path.suffix in (".raw", ".qcow2")]
        if row is None or row.state == "deleted":
            yield Finding("volume file", names, "belongs to no volume" if row is None else "its volume is deleted")
        elif len(disks) > 1:
            yield Finding("duplicate", names, "two files of one volume")
        elif [path for path in paths if path.name.endswith(".receipt")] and not disks:
            yield Finding("receipt", names, "a receipt without its file")
        elif disks and receipts.read(disks[0]) is None and row.state != "error":
            yield Finding("volume file", names, f"has no good receipt though the volume is {row.state}")
    for uid, row in rows.items():
        if row.state == "attached" and row.format in ("raw", "qcow2") and not _is_fake(row) and uid not in found:
            yield Finding("untrue", uid, "is attached and has no file")


def _is_fake(volume: Any) -> bool:
    return volume.image is not None and volume.image.hypervisor == "fake"


def trash_entries() -> Iterator[Finding]:
    from hypervisor import local
    from volumes.models import Volume

    states = dict(Volume.objects.values_list("uid", "state"))
    seen: set[str] = set()
    for entry in local.trash().entries():
        if states.get(entry.uid) != "deleted":
            yield Finding("trash", entry.name, f"its volume is {states.get(entry.uid, 'unknown')}, not deleted")
        if entry.uid in seen:
            yield Finding("duplicate", entry.name, "a second entry of one volume in the trash")
        seen.add(entry.uid)
        missing = [name for name in entry.files if not (local.node_dir() / "trash" / entry.name / name).exists()]
        if missing:
            yield Finding("trash", entry.name, f"lacks {', '.join(missing)}")
    for path in _files(local.node_dir() / "trash"):
        if path.is_dir() and not path.name.startswith(".") and not (path / "entry.json").is_file():
            yield Finding("trash", path.name, "has no entry.json")


def images() -> Iterator[Finding]:
    from hypervisor import local, receipts
    from volumes.models import BackupObject

    known = set(BackupObject.objects.exclude(sha256="").values_list("sha256", flat=True))
    for path in _files(local.node_dir() / "images"):
        sha256 = path.name.partition(".")[0]
        if path.suffix == ".raw" and sha256 not in known:
            yield Finding("image", path.name, "is of no image")
        if path.suffix == ".raw" and receipts.read(path) is None:
            yield Finding("image", path.name, "has no good receipt")
        if path.suffix == ".receipt" and not path.with_suffix("").exists():
            yield Finding("receipt", path.name, "a receipt without its image")


def stored_objects() -> Iterator[Finding]:
    from hypervisor import local
    from volumes.models import BackupObject

    rows = {row.uid: row for row in BackupObject.objects.all()}
    sizes = {path.name: path.stat().st_size for path in _files(local.storage_dir())}
    for name in sizes:
        uid = name.removesuffix(".receipt")
        if uid.startswith("bo-") and uid not in rows:
            yield Finding("object", name, "belongs to no backup object")
        if name.endswith(".receipt") and uid not in sizes:
            yield Finding("receipt", name, "a receipt without its object")
    for uid, row in rows.items():
        if row.state == "available" and sizes.get(uid) != row.size_bytes:
            yield Finding("untrue", uid, "is available and not whole in the storage")


def guest_files() -> Iterator[Finding]:
    """Notes and consoles of guests whose instance is gone."""
    from hypervisor import local
    from instances.models import Instance

    live = set(Instance.objects.exclude(state="terminated").values_list("uid", flat=True))
    for part in ("guests", "consoles", "mounts"):
        for path in _files(local.node_dir() / part):
            if path.name.partition(".")[0] not in live:
                yield Finding("guest file", f"{part}/{path.name}", "belongs to no live instance")


# --- the machine -----------------------------------------------------------------------------------------------------


def guests() -> Iterator[Finding]:
    """Guests run exactly where and when the rows say so."""
    from hypervisor import local
    from hypervisor.contract import Observed
    from instances.models import Instance

    node = local.this_node()
    seen: dict[str, str] = {}
    for hypervisor in ("kvm", "lxc"):
        for look in local.driver(hypervisor).observe_all():
            if look.uid in seen:
                yield Finding("duplicate", look.uid, f"a guest of {seen[look.uid]} and of {hypervisor}")
            seen[look.uid] = hypervisor
            row = Instance.objects.filter(uid=look.uid).first()
            runs = look.state in (Observed.RUNNING, Observed.PAUSED)
            if row is None or row.state == "terminated":
                yield Finding("guest", look.uid, f"is {look.state} and its instance is gone")
            elif runs and row.state in ("halted", "error"):
                yield Finding("untrue", look.uid, f"runs though its instance is {row.state}")
            elif not runs and row.state == "running":
                yield Finding("untrue", look.uid, f"is {look.state} ({look.reason}) though its instance is running")
    for row in Instance.objects.filter(node=node, state="running").exclude(hypervisor="fake"):
        if row.uid not in seen:
            yield Finding("untrue", row.uid, "is running and unknown to its hypervisor")


def processes() -> Iterator[Finding]:
    """One process per guest, none without one."""
    from django.conf import settings

    from instances.models import Instance

    running = set(Instance.objects.filter(state="running").exclude(hypervisor="fake").values_list("uid", flat=True))
    counted: dict[str, int] = {}
    mark = settings.STACK["state_dir"] + "/"
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        name = os.path.basename(words[0])  # noqa: PTH119
        if name.startswith("qemu-system") and any(mark in word for word in words):
            counted.setdefault(_uid_in(words), 0)
            counted[_uid_in(words)] += 1
        elif name == "libvirt_lxc" and "--name" in words and _is_of_this_stack(process):
            uid = words[words.index("--name") + 1]
            counted[uid] = counted.get(uid, 0) + 1
    for uid, number in counted.items():
        if uid not in running:
            yield Finding("process", uid, f"{number} guest process(es) run though no instance of that id is running")
        elif number > 1:
            yield Finding("duplicate", uid, f"{number} guest processes of one instance")


def _uid_in(words: list[str]) -> str:
    found = next((re.search(r"guest=(i-[a-z0-9-]+)", word) for word in words if "guest=" in word), None)
    return found[1] if found else "unknown"


def _is_of_this_stack(process: Path) -> bool:
    try:
        return (process / "ns/mnt").readlink() != Path("/proc/1/ns/mnt").readlink() and _cgroup_mark() in (
            process / "cgroup"
        ).read_text()
    except OSError:
        return False


def _cgroup_mark() -> str:
    return f"vdc-{os.environ['VDC_NAME']}/"


def mounts_and_loops() -> Iterator[Finding]:
    """Root file systems are mounted, and loop devices stand, for running containers only."""
    from hypervisor import local
    from hypervisor.drivers.libvirt import loops, rootfs
    from instances.models import Instance

    running = Instance.objects.filter(node=local.this_node(), hypervisor="lxc", state="running")
    uids = set(running.values_list("uid", flat=True))
    disks = set(running.values_list("attachments__volume__uid", flat=True))
    mounts_dir = local.node_dir() / "mounts"
    for mount in rootfs.mounts():
        target = Path(mount.target)
        if target.parent == mounts_dir and target.name not in uids:
            yield Finding("mount", mount.target, "is mounted for no running container")
    for loop in loops.in_use():
        path = Path(loop.backing_file.removesuffix(" (deleted)"))
        if local.node_dir() in path.parents and path.name.partition(".")[0] not in disks:
            yield Finding("loop", loop.device, f"stands over {loop.backing_file} for no running container")


def links() -> Iterator[Finding]:
    """Host ends of network cards, which are plugged for running guests only."""
    from hypervisor import local
    from instances.models import Instance

    node = local.this_node()
    slots = set(Instance.objects.filter(node=node, state="running").values_list("slot", flat=True))
    for _, name in socket.if_nameindex():
        found = re.fullmatch(rf"v{node.number}s(\d+)n\d+", name)
        if found and int(found[1]) not in slots:
            yield Finding("link", name, f"is plugged, and no running instance has slot {found[1]}")


def networks() -> Iterator[Finding]:
    """Bridge, rules and DHCP of each network are as the record says, once, and no others are there."""
    from django.conf import settings

    from hypervisor import bridges
    from networks.models import Network
    from networks.specs import network_spec

    run_dir = Path(settings.STACK["run_dir"]) / "networks"
    known = {network.uid: network for network in Network.objects.all()}
    for uid, network in known.items():
        place = bridges.NetworkPlace(run_dir=run_dir / uid, nft_table=settings.STACK["nft_table"])
        for sentence in bridges.observe_network(network_spec(network), place):
            yield Finding("network", uid, sentence)
        servers = [entry for entry in Path("/proc").glob("[0-9]*") if _serves(entry, run_dir / uid)]
        if len(servers) != 1:
            yield Finding("network", uid, f"{len(servers)} DHCP servers serve it")
    for path in _files(run_dir):
        if path.is_dir() and path.name not in known:
            yield Finding("network", path.name, "is kept on the node and unknown to the record")
    bridges_known = {network.bridge for network in known.values()}
    chains = subprocess.run(
        ["nft", "-j", "list", "table", "inet", settings.STACK["nft_table"]], capture_output=True, text=True, check=False
    )
    for entry in json.loads(chains.stdout or '{"nftables": []}')["nftables"]:
        name = entry.get("chain", {}).get("name", "")
        if name and name.partition("_")[0] not in bridges_known:
            yield Finding("rules", name, "is a chain of no network")


def _serves(process: Path, run_dir: Path) -> bool:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return words[0] == "dnsmasq" and f"--pid-file={run_dir / 'dnsmasq.pid'}" in words


def fake_guests() -> Iterator[Finding]:
    """The guests of fake nodes, in their small files."""
    from hypervisor import local
    from instances.models import Instance

    states = dict(Instance.objects.filter(hypervisor="fake").values_list("uid", "state"))
    seen: dict[str, str] = {}
    for path in local.node_dir().glob("**/fake/guests/*.json"):
        note = json.loads(path.read_text())
        uid = path.name.removesuffix(".json")
        if uid in seen:
            yield Finding("duplicate", uid, "two fake guests of one instance")
        seen[uid] = note["state"]
        if states.get(uid, "terminated") == "terminated":
            yield Finding("guest", uid, f"is {note['state']} on a fake node and its instance is gone")
        elif (note["state"] == "running") != (states[uid] == "running"):
            yield Finding("untrue", uid, f"is {note['state']} on its fake node though its instance is {states[uid]}")
    for uid, state in states.items():
        if state == "running" and uid not in seen:
            yield Finding("untrue", uid, "is running and unknown to its fake node")


LOOKS = {
    "node": (
        moving_states,
        room,
        addresses,
        temporary_files,
        volume_files,
        trash_entries,
        images,
        stored_objects,
        guest_files,
        guests,
        processes,
        mounts_and_loops,
        links,
        networks,
    ),
    "fleet": (temporary_files, fake_guests, guest_files),
}


def main() -> int:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vdcproject.settings")
    django.setup()
    print(json.dumps([asdict(finding) for finding in audit(sys.argv[1])]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
