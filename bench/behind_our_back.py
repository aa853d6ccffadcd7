"""How soon the record shows what happened without us: a guest destroyed, and one started, past the data center.

In a stack of its own, one guest of each kind is ended and started again and again: KVM and LXC by libvirt itself with
the guest's own XML, the fake one in the fake world. Run as `python -m bench.behind_our_back`; exit code 0 only if the
aim holds: in every round the API shows the new state within 2 s.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt

from bench.report import Claim, conclude
from bench.stack import door_of, fake_image, import_image, operator_login, own_stack
from cli.client import Client
from deploy.guests.build import build_images
from deploy.guests.command import BuildError
from deploy.laptop import Stack, StackError
from deploy.laptop.namespaces import directory as namespaces_of
from deploy.laptop.stack import CLONE
from hypervisor.contract import DiskSpec, Observed
from hypervisor.drivers.fake_world import FakeWorld
from hypervisor.drivers.libvirt import loops, rootfs

STACK = "vdcbench-behind"
ROUNDS = 20
MEMORY_MIB = {"lxc": 64, "kvm": 160, "fake": 32}
PATIENCE_S = 120
LOOK_EVERY_S = 0.02
SETTLE_S = 0.2  # until the observer, too, has seen that the loop device is free
AIM_S = 2.0
MEASURE = "--measure"

METHOD = f"""\
One guest of each kind, ended and started {ROUNDS} times past the data center, whose processes are not told.
From before the call that ends or starts it until a client that looks every {LOOK_EVERY_S * 1000:.0f} ms sees the new
state of the instance. The call itself is part of it. Slowest: of all rounds of that kind."""


class Libvirt:
    """A guest in the hands of somebody who has virsh."""

    def __init__(self, driver: str, content: dict[str, Any], uid: str) -> None:
        socket = content["libvirt_socket"]
        self.connection = libvirt.open(f"{driver}+unix:///system?socket={socket}")
        self.uid = uid
        self.xml = self._domain().XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)

    def _domain(self) -> libvirt.virDomain:
        return self.connection.lookupByName(self.uid)

    def end(self) -> None:
        self._domain().destroy()

    def prepare(self) -> None:
        """Wait until what was left of the last run is cleared up."""
        until(
            lambda: self.uid not in [domain.name() for domain in self.connection.listAllDomains()], "the domain to go"
        )

    def start(self) -> None:
        self.connection.createXML(self.xml)


class Container(Libvirt):
    """As above, with the root file system to be shown first."""

    def __init__(self, content: dict[str, Any], uid: str, root_device: str) -> None:
        super().__init__("lxc", content, uid)
        self.root = Path(content["state_dir"]) / "node" / "mounts" / uid
        self.disk = DiskSpec("", rootfs.disk_at(self.root), "raw", 1)
        self.root_device = root_device
        self.first_id = int(self.xml.partition("<uid start='0' target='")[2].partition("'")[0])

    def prepare(self) -> None:
        super().prepare()
        until(lambda: rootfs.mount_at(self.root) is None, "the root file system to be hidden")
        until(lambda: not loops.over(self.disk.path), "its loop device to be given back")
        time.sleep(SETTLE_S)
        rootfs.ensure_shown(self.disk, self.root_device, self.root, self.first_id)


class Fake:
    """A guest of the fake world."""

    def __init__(self, content: dict[str, Any], uid: str) -> None:
        self.world = FakeWorld(Path(content["state_dir"]) / "node" / "fake")
        self.uid = uid

    def end(self) -> None:
        self.world.happen(self.uid, Observed.CRASHED, "ended by the bench")

    def prepare(self) -> None:
        """Nothing is left of it."""

    def start(self) -> None:
        self.world.happen(self.uid, Observed.RUNNING)


def until(question: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not question():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: still waiting for {what}")
        time.sleep(LOOK_EVERY_S)


def measure(told: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Seconds until it showed: {kind: {"ended": […], "started": […]}}."""
    found: dict[str, dict[str, list[float]]] = {}
    with door_of(told["login"]) as door:
        for kind, image in told["images"].items():
            uid = launch(door, image["id"], kind)
            guest = {
                "kvm": lambda uid=uid: Libvirt("qemu", told["stack"], uid),
                "lxc": lambda uid=uid, image=image: Container(told["stack"], uid, image["root_device"]),
                "fake": lambda uid=uid: Fake(told["stack"], uid),
            }[kind]()
            found[kind] = {"ended": [], "started": []}
            for number in range(ROUNDS):
                found[kind]["ended"].append(shown_s(door, uid, guest.end, "halted"))
                guest.prepare()
                found[kind]["started"].append(shown_s(door, uid, guest.start, "running"))
                last = {word: f"{seconds[-1]:.2f} s" for word, seconds in found[kind].items()}
                print(f"{kind} round {number + 1}: {last}", file=sys.stderr, flush=True)
    return found


def launch(door: Client, image: str, kind: str) -> str:
    uid = door.post("instances", {"image": image, "memory_mib": MEMORY_MIB[kind]})["id"]
    until(lambda: door.get(f"instances/{uid}")["state"] == "running", f"{uid} to run")
    return uid


def shown_s(door: Client, uid: str, act: Callable[[], None], state: str) -> float:
    begun = time.perf_counter()
    act()
    until(lambda: door.get(f"instances/{uid}")["state"] == state, f"{uid} to be {state}")
    return time.perf_counter() - begun


def prepare(content: dict[str, Any], work: Path) -> dict[str, Any]:
    login = operator_login(content, work)
    guests = CLONE / "build" / "guests"
    with door_of(login) as door:
        made = build_images(guests, print)["images"]
        images = {facts["hypervisor"]: import_image(door, guests, facts) for facts in made}
        images["fake"] = {"id": fake_image(door, work)}
    return {"login": login, "images": images, "stack": content}


def measure_inside(told: dict[str, Any]) -> dict[str, Any]:
    """`measure` in a process of its own, where the mounts of the node are."""
    namespace = namespaces_of(Stack(STACK)) / "mnt"
    module = [sys.executable, "-m", "bench.behind_our_back", MEASURE]
    command = ["nsenter", f"--mount={namespace}", f"--wdns={CLONE}", "--", *module]
    # The secrets go by the standard input, where nobody can list them.
    done = subprocess.run(command, input=json.dumps(told), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"The measuring process ended with exit code {done.returncode}; what it said stands above.")
    return json.loads(done.stdout)


def claims(found: dict[str, dict[str, list[float]]]) -> list[Claim]:
    told: list[Claim] = []
    for kind, words in found.items():
        for word, seconds in words.items():
            told.append(Claim(f"behind_our_back.{kind}_{word}_median", statistics.median(seconds), "s"))
            told.append(Claim(f"behind_our_back.{kind}_{word}_slowest", max(seconds), "s", AIM_S))
    return told


def main() -> int:
    if sys.argv[1:] == [MEASURE]:
        print(json.dumps(measure(json.load(sys.stdin))))
        return 0
    try:
        with tempfile.TemporaryDirectory(prefix="vdcbench-") as work, own_stack(STACK, fake_nodes=1) as content:
            found = measure_inside(prepare(content, Path(work)))
    except (StackError, BuildError) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    return 0 if conclude("behind_our_back", METHOD, {"rounds": found}, claims(found)) else 1


if __name__ == "__main__":
    sys.exit(main())
