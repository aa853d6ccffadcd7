"""What a whole node costs while nobody asks anything of it: CPU and memory of its three processes.

In a stack of its own (`vdcidle`), which is removed in the end. The node launches and ends one guest of each kind
first, so that everything it ever loads is there. Then nothing is asked for a while.

Run as `python -m bench.idle`; exit code 0 only if the aims hold.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench import report
from bench.launch import guest_images, launch_once
from bench.report import Claim
from bench.stack import door_of, operator_login, own_stack
from deploy.guests.command import BuildError
from deploy.laptop import Stack, StackError, cgroups
from deploy.laptop.supervision import NODE, Supervisor

STACK = "vdcidle"
SETTLE_S = 20
SAMPLES = 6
SAMPLE_EVERY_S = 20
AIM_CPU_PERCENT = 1.0
AIM_PSS_MIB = 220.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

METHOD = f"""\
Idle cost of a node (ops, bulk, observer) after it launched and ended one guest of each kind, {SETTLE_S} s later.
CPU: utime and stime of each process and of its ended children, from /proc/<pid>/stat, over \
{SAMPLES * SAMPLE_EVERY_S} s, in percent of one core.
Memory: Pss of /proc/<pid>/smaps_rollup, the median of {SAMPLES} samples, each the sum over the processes of a program.
libvirtd, virtlogd and dnsmasq are not processes of ours; they and the control plane are told apart."""


def programs(stack: Stack) -> dict[int, str]:
    """Which program each process of the stack belongs to: supervisor's own name for it, or what it is."""
    of_pid = {info["pid"]: name for name, info in Supervisor(stack).infos().items() if info["pid"]}
    of_pid[int((stack.run_dir / "supervisord.pid").read_text())] = "supervisord"
    found: dict[int, str] = {}
    for pid in cgroups.services(stack):
        one, name = pid, None
        while one > 1 and name is None:
            one, name = _stat(one)[0], of_pid.get(one)
        found[pid] = name or Path(f"/proc/{pid}/comm").read_text().strip()
    return found


def _stat(pid: int) -> tuple[int, float]:
    """Its parent, and the CPU seconds that it and its ended children have taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1]), sum(int(ticks) for ticks in fields[11:15]) / TICKS_PER_S


def cpu_s(of_pid: dict[int, str]) -> Counter[str]:
    taken: Counter[str] = Counter()
    for pid, name in of_pid.items():
        taken[name] += _stat(pid)[1]
    return taken


def pss_mib(of_pid: dict[int, str]) -> Counter[str]:
    held: Counter[str] = Counter()
    for pid, name in of_pid.items():
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        held[name] += int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024
    return held


def measure(stack: Stack) -> dict[str, dict[str, Any]]:
    """By program: percent of a core, and the samples of its memory in MiB."""
    before = programs(stack)
    begun, cpu_before = time.monotonic(), cpu_s(before)
    samples: list[Counter[str]] = []
    for _ in range(SAMPLES):
        time.sleep(SAMPLE_EVERY_S)
        samples.append(pss_mib(before))
    passed_s, cpu_after = time.monotonic() - begun, cpu_s(before)
    if (after := programs(stack)).keys() != before.keys():
        came_and_went = sorted({*before.items()} ^ {*after.items()})
        raise SystemExit(f"The stack was not idle; these processes came or went: {came_and_went}")
    return {
        name: {
            "cpu_percent": (cpu_after[name] - cpu_before[name]) / passed_s * 100,
            "pss_mib": [sample[name] for sample in samples],
        }
        for name in sorted(set(before.values()))
    }


def claims(found: dict[str, dict[str, Any]]) -> list[Claim]:
    node = [found[name] for name in NODE]
    node_pss = [sum(sample) for sample in zip(*(one["pss_mib"] for one in node), strict=True)]
    told = [
        Claim("idle.node_cpu", sum(one["cpu_percent"] for one in node), "% of a core", AIM_CPU_PERCENT),
        Claim("idle.node_pss", statistics.median(node_pss), "MiB", AIM_PSS_MIB),
    ]
    for name, one in found.items():
        told.append(Claim(f"idle.{name}_cpu", one["cpu_percent"], "% of a core"))
        told.append(Claim(f"idle.{name}_pss", statistics.median(one["pss_mib"]), "MiB"))
    return told


def main() -> int:
    try:
        with tempfile.TemporaryDirectory(prefix="vdcidle-") as work, own_stack(STACK) as content:
            with door_of(operator_login(content, Path(work))) as client:
                for hypervisor, image in guest_images(client).items():
                    launch_once(client, image["id"], hypervisor)
            print(f"the node rests; measuring for {SETTLE_S + SAMPLES * SAMPLE_EVERY_S} s ...", flush=True)
            time.sleep(SETTLE_S)
            found = measure(Stack(STACK))
    except (StackError, BuildError) as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    return 0 if report.conclude("idle", METHOD, {"programs": found}, claims(found)) else 1


if __name__ == "__main__":
    sys.exit(main())
