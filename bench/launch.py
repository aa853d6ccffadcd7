"""How long a launch takes beside what libvirt alone needs: from the POST until the API says `running`.

In a stack of its own (`vdcbench`), which is removed in the end, each round starts four guests, taking turns:

    ours   POST /instances of an image whose bytes are in the node's store, until its state is `running`
    bare   the same disk made by the product's own functions, then libvirt-python with the product's own XML

Run as `python -m bench.launch`; exit code 0 only if the aim holds:
median(ours) ≤ median(bare libvirt calls) + 150 ms + median(disk work), for LXC.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import report
from bench.report import Claim
from bench.stack import door_of, import_image, operator_login, own_stack
from cli.client import Client
from deploy.guests.build import build_images
from deploy.guests.command import BuildError
from deploy.laptop import Stack, StackError
from deploy.laptop.namespaces import directory as namespaces_of

STACK = "vdcbench"
ROUNDS = 20
WARM_UP_ROUNDS = 2
AIMS_MS = {"lxc": 150.0}
LOOK_EVERY_S = 0.05  # looking costs the same two CPUs that do the work
PATIENCE_S = 120
MEMORY_MIB = {"lxc": 64, "kvm": 160}
ROOT = Path(__file__).resolve().parents[1]
MEASURE = "--measure"

METHOD = f"""\
Launch of an LXC and a KVM guest, image warm in the node's store, beside bare libvirt calls with the same XML.
Medians of {ROUNDS} rounds in one run, taking turns, after {WARM_UP_ROUNDS} rounds to warm up.
Ours: from before the POST until the API's own time at which the launch was done and the instance `running`.
By the client's clock, which looks every {LOOK_EVERY_S * 1000:.0f} ms: `_seen_by_client`.
Bare: createXML (LXC), defineXML and create (KVM).
Disk work, in the same rounds: the image looked up, the volume made, and for LXC mounted, by the product's functions.
Overhead: ours - bare - disk work, of the medians. What it consists of: `_part` (steps, and the ways between them)."""


# --- the stack ---------------------------------------------------------------------------------------------------


def prepare(content: dict[str, Any], work: Path) -> dict[str, Any]:
    """A login and one image per hypervisor: what the measuring process needs to know."""
    login = operator_login(content, work)
    with door_of(login) as door:
        images = guest_images(door)
        node = door.get("nodes")["items"][0]
    return {"login": login, "images": images, "acceleration": node["acceleration"], "stack": content}


def guest_images(door: Client) -> dict[str, dict[str, Any]]:
    """The registered image of each hypervisor."""
    guests = ROOT / "build" / "guests"
    manifest = build_images(guests, print)
    return {facts["hypervisor"]: import_image(door, guests, facts) for facts in manifest["images"]}


# --- measuring, in the mount namespace of the stack ----------------------------------------------------------------


def measure(told: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    """All rounds; per hypervisor and round the seconds of everything."""
    from bench.bare import BareGuest  # libvirt, and mounts of the stack: in this process only

    found: dict[str, list[dict[str, float]]] = {hypervisor: [] for hypervisor in told["images"]}
    with door_of(told["login"]) as door:
        bare = {
            hypervisor: BareGuest(
                told["stack"], image, memory_mib=MEMORY_MIB[hypervisor], acceleration=told["acceleration"]
            )
            for hypervisor, image in told["images"].items()
        }
        for number in range(-WARM_UP_ROUNDS, ROUNDS):
            for hypervisor, image in told["images"].items():
                turns = ["ours", "bare"] if number % 2 else ["bare", "ours"]
                one: dict[str, float] = {}
                for turn in turns if number > -WARM_UP_ROUNDS else ["ours"]:  # the first launch fetches the image
                    one |= launch_once(door, image["id"], hypervisor) if turn == "ours" else _bare(bare[hypervisor])
                if number >= 0:
                    found[hypervisor].append(one)
                    print(
                        f"round {number + 1} {hypervisor}: ours {one['ours'] * 1000:.0f} ms, "
                        f"bare {one['bare'] * 1000:.0f} ms, disk {one['disk'] * 1000:.0f} ms",
                        file=sys.stderr,
                        flush=True,
                    )
    return found


def _bare(guest: Any) -> dict[str, float]:
    try:
        timing = guest.start()
    finally:
        guest.end()
    return {"disk": timing.disk_s, "bare": timing.libvirt_s}


def launch_once(door: Client, image: str, hypervisor: str) -> dict[str, float]:
    """Launch, look until it runs, terminate. Seconds of the client's clock, and of each part by the API's own."""
    begun_at, begun = time.time(), time.perf_counter()
    instance = door.post("instances", {"image": image, "memory_mib": MEMORY_MIB[hypervisor]})
    answered = time.perf_counter()
    path = f"instances/{instance['id']}"
    try:
        while (state := door.get(path)["state"]) != "running":
            if state in ("error", "terminated") or time.perf_counter() > begun + PATIENCE_S:
                raise SystemExit(f"The launch of {instance['id']} ended in {state}; see {instance['operation']['id']}.")
            time.sleep(LOOK_EVERY_S)
        runs = time.perf_counter()
    finally:
        _terminate(door, path)
    story = door.get(f"operations/{instance['operation']['id']}")
    return {
        "ours": _moment(story["ended_at"]) - begun_at,
        "seen by client": runs - begun,
        "request": answered - begun,
        **{f"part {name}": seconds for name, seconds in _parts(story, begun_at).items()},
    }


def _parts(story: dict[str, Any], begun_at: float) -> dict[str, float]:
    """Where the time went, by the API's own clock: each step, and what lies between two of them."""
    parts: dict[str, float] = {}
    last = begun_at
    for step in story["steps"]:
        name = step["task"].partition(".")[2]
        started_at, ended_at = _moment(step["started_at"]), _moment(step["ended_at"])
        parts[f"before {name}"] = started_at - last
        parts[name] = ended_at - started_at
        last = ended_at
    return parts


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _terminate(door: Client, path: str) -> None:
    operation = door.post(f"{path}/terminate", {})["operation"]["id"]
    deadline = time.monotonic() + PATIENCE_S
    while door.get(f"operations/{operation}")["ended_at"] is None:
        if time.monotonic() > deadline:
            raise SystemExit(f"{operation} did not terminate its instance within {PATIENCE_S} s.")
        time.sleep(0.1)


def measure_inside(told: dict[str, Any]) -> dict[str, list[dict[str, float]]]:
    """`measure` in a process of its own, where libvirtd's mounts are."""
    namespace = namespaces_of(Stack(STACK)) / "mnt"
    command = ["nsenter", f"--mount={namespace}", f"--wdns={ROOT}", "--", sys.executable, "-m", "bench.launch", MEASURE]
    # The secrets go by the standard input, where nobody can list them.
    done = subprocess.run(command, input=json.dumps(told), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"The measuring process ended with exit code {done.returncode}; what it said stands above.")
    return json.loads(done.stdout)


# --- the claim -----------------------------------------------------------------------------------------------------


def claims(found: dict[str, list[dict[str, float]]]) -> list[Claim]:
    told: list[Claim] = []
    for hypervisor, rounds in found.items():
        ms = {name: statistics.median(one[name] for one in rounds) * 1000 for name in rounds[0]}
        name = f"launch.{hypervisor}"
        told += [Claim(f"{name}_{part.replace(' ', '_')}", ms[part], "ms") for part in ms if part.startswith("part ")]
        told += [
            Claim(f"{name}_request", ms["request"], "ms"),
            Claim(f"{name}_seen_by_client", ms["seen by client"], "ms"),
            Claim(name, ms["ours"], "ms"),
            Claim(f"{name}_bare", ms["bare"], "ms"),
            Claim(f"{name}_disk_work", ms["disk"], "ms"),
            Claim(f"{name}_overhead", ms["ours"] - ms["bare"] - ms["disk"], "ms", AIMS_MS.get(hypervisor)),
        ]
    return told


def main() -> int:
    if sys.argv[1:] == [MEASURE]:
        print(json.dumps(measure(json.load(sys.stdin))))
        return 0
    try:
        with tempfile.TemporaryDirectory(prefix="vdcbench-") as work, own_stack(STACK) as content:
            found = measure_inside(prepare(content, Path(work)))
    except (StackError, BuildError) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    return 0 if report.conclude("launch", METHOD, {"rounds": found}, claims(found)) else 1


if __name__ == "__main__":
    sys.exit(main())
