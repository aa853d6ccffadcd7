"""How fast a disk image comes from HTTP to a volume that a guest can start from, beside the original's pipeline.

Both deploy the same gzipped 4 GiB disk from the same server in the same run, taking turns:

    ours      ImageStore.fetch (verified, fsynced) + VolumeFiles.build: a qcow2 overlay, as KVM uses it
    original  curl -fsS URL | gunzip | pv -s SIZE | cp --sparse=always /dev/stdin VOLUME  (no check, no fsync)

Run as `python -m bench.deploy_image`; exit code 0 only if all aims hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.quiet_watch import QuietWatch
from bench.report import BUILD, Claim, conclude
from hypervisor.contract import SourceSpec, VolumeSpec
from hypervisor.image_store import ImageStore
from hypervisor.trash import Trash
from hypervisor.volume_files import VolumeFiles

MIB = 1024**2
GIB = 1024**3
DISK_BYTES = 4 * GIB
DATA_BYTES = 1740 * MIB
EXTENT_BYTES = 4 * MIB
ROOM_BYTES = 12 * GIB
ROUNDS = 3
AIM_RATIO = 0.6
AIM_MEMORY_MIB = 100.0
TOOLS = ("curl", "gunzip", "gzip", "pv", "cp", "cmp", "qemu-img")


@dataclass(frozen=True)
class Deployment:
    """One deployment by us, as measured inside the process that did it."""

    fetch_s: float
    overlay_s: float
    clone_s: float
    peak_memory_mib: float
    entry: str
    clone: str


def make_disk(path: Path) -> None:
    """A sparse disk with 1.7 GiB of data in extents of 4 MiB: half noise, half text that gzip packs to a third."""
    dice = random.Random(20100401)  # noqa: S311 -- the same disk each time
    words = [bytes(dice.choices(b"abcdefghijklmnopqrstuvwxyz_/.-", k=dice.randint(2, 12))) for _ in range(3000)]
    text = b" ".join(dice.choices(words, k=2_000_000))
    places = sorted(dice.sample(range(DISK_BYTES // EXTENT_BYTES), DATA_BYTES // EXTENT_BYTES))
    with path.open("wb") as file:
        for number, place in enumerate(places):
            if number % 2:
                cuts = [dice.randrange(len(text) - 64 * 1024) for _ in range(EXTENT_BYTES // (64 * 1024))]
                extent = b"".join(text[cut : cut + 64 * 1024] for cut in cuts)
            else:
                extent = dice.randbytes(EXTENT_BYTES)
            file.seek(place * EXTENT_BYTES)
            file.write(extent)
        file.truncate(DISK_BYTES)


def pack(disk: Path, packed: Path) -> str:
    """Compress the disk as people do, with gzip; returns the SHA-256 of the result."""
    with disk.open("rb") as source, packed.open("wb") as target:
        subprocess.run(["gzip", "-n", "-c"], stdin=source, stdout=target, check=True)
    with packed.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def files_server(state_dir: Path, token: str) -> Iterator[int]:
    """The product's files server on a free port of 127.0.0.1, in processes of its own; gives the port."""
    (state_dir / "stack.json").write_text(json.dumps({"files_token": token}))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.fileno()
        command = [sys.executable, "-m", "gunicorn", f'hypervisor.files_server:FilesServer("{state_dir}")']
        command += ["-k", "gthread", "--threads", "2", "-b", f"fd://{number}", "--no-control-socket"]
        server = subprocess.Popen(command, pass_fds=[number], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield listening.getsockname()[1]
        finally:
            server.terminate()
            server.wait(30)


def deploy_ours(source: SourceSpec, place: Path) -> Deployment:
    """Deploy in a child process, so that its memory is its own."""
    command = [sys.executable, "-m", "bench.deploy_image", "--deploy-once", str(place)]
    done = subprocess.run(command, input=json.dumps(asdict(source)), stdout=subprocess.PIPE, text=True, check=True)
    return Deployment(**json.loads(done.stdout))


def deploy_once(source: SourceSpec, place: Path) -> Deployment:
    store = ImageStore(place / "images")
    volumes = VolumeFiles(place / "volumes", store, Trash(place / "trash", place / "volumes"))
    watch = QuietWatch()
    begun = time.perf_counter()
    entry = store.fetch(source, watch, tag="bench.1")
    fetched = time.perf_counter()
    volumes.build(VolumeSpec("vol-overlay", "qcow2", DISK_BYTES, entry.sha256), watch, tag="bench.1")
    built = time.perf_counter()
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    clone = volumes.build(VolumeSpec("vol-clone", "raw", DISK_BYTES, entry.sha256), watch, tag="bench.1")
    cloned = time.perf_counter()
    return Deployment(
        fetch_s=fetched - begun,
        overlay_s=built - fetched,
        clone_s=cloned - built,
        peak_memory_mib=int(peak.split()[1]) / 1024,
        entry=entry.path,
        clone=clone.path,
    )


def deploy_original(source: SourceSpec, volume: Path) -> tuple[float, float]:
    """The original's pipeline; seconds until its last process ended, and until its data is on the disk too."""
    stages = [
        ["curl", "-fsS", "-H", f"Authorization: Bearer {source.bearer_token}", source.url],
        ["gunzip"],
        ["pv", "-s", str(DISK_BYTES)],
        ["cp", "--sparse=always", "/dev/stdin", str(volume)],
    ]
    begun = time.perf_counter()
    running: list[subprocess.Popen[bytes]] = []
    for number, argv in enumerate(stages):
        stdin = running[-1].stdout if running else subprocess.DEVNULL
        stdout = subprocess.PIPE if number < len(stages) - 1 else subprocess.DEVNULL
        running.append(subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE))
        if number:
            stdin.close()  # ours: the next stage holds its own
    messages = [stage.communicate()[1] for stage in reversed(running)]
    ended = time.perf_counter()
    if any(stage.returncode for stage in running):
        raise SystemExit(f"The original's pipeline failed: {b' '.join(messages).decode(errors='replace')}")
    with volume.open("rb") as file:
        os.fsync(file.fileno())
    return ended - begun, time.perf_counter() - begun


def require_same(disk: Path, copy: Path) -> None:
    if subprocess.run(["cmp", "--silent", str(disk), str(copy)], check=False).returncode:
        raise SystemExit(f"{copy} differs from the disk that was deployed")


def measure(work: Path) -> dict[str, Any]:
    print("making the disk and packing it with gzip (about two minutes) ...", flush=True)
    storage = work / "stack" / "storage"
    storage.mkdir(parents=True)
    disk, packed = work / "disk.raw", storage / "disk.gz"
    make_disk(disk)
    sha256 = pack(disk, packed)
    token = secrets.token_hex(16)
    ours: list[Deployment] = []
    original: list[tuple[float, float]] = []
    with files_server(work / "stack", token) as port:
        url = f"http://127.0.0.1:{port}/storage/{packed.name}"
        source = SourceSpec(url, "gz", sha256, packed.stat().st_size, DISK_BYTES, bearer_token=token)
        warm_up(source)
        for number in range(ROUNDS):
            for turn in ("ours", "original") if number % 2 == 0 else ("original", "ours"):
                place = work / turn
                place.mkdir()
                os.sync()  # nobody pays for what the other one left unwritten
                if turn == "ours":
                    ours.append(deploy_ours(source, place))
                    require_same(disk, Path(ours[-1].entry))
                    require_same(disk, Path(ours[-1].clone))
                    print(f"round {number + 1}: ours {ours[-1].fetch_s + ours[-1].overlay_s:.2f} s", flush=True)
                else:
                    original.append(deploy_original(source, place / "volume"))
                    require_same(disk, place / "volume")
                    print(f"round {number + 1}: original {original[-1][0]:.2f} s", flush=True)
                shutil.rmtree(place)
    kvm_s = statistics.median(each.fetch_s + each.overlay_s for each in ours)
    lxc_s = statistics.median(each.fetch_s + each.clone_s for each in ours)
    original_s = statistics.median(each[0] for each in original)
    return {
        "rounds": ROUNDS,
        "data_bytes": disk.stat().st_blocks * 512,
        "stored_bytes": packed.stat().st_size,
        "ours": [asdict(each) for each in ours],
        "original": [{"seconds": each[0], "with_fsync_s": each[1]} for each in original],
        "kvm_s": kvm_s,
        "overlay_s": statistics.median(each.overlay_s for each in ours),
        "lxc_s": lxc_s,
        "clone_s": statistics.median(each.clone_s for each in ours),
        "original_s": original_s,
        "original_with_fsync_s": statistics.median(each[1] for each in original),
        "ratio": kvm_s / original_s,
        "lxc_ratio": lxc_s / original_s,
        "memory_mib": max(each.peak_memory_mib for each in ours),
    }


def warm_up(source: SourceSpec) -> None:
    """Wait for the server, and have the packed disk in memory for both."""
    header = f"Authorization: Bearer {source.bearer_token}"
    subprocess.run(["curl", "-fsS", "-o", "/dev/null", "-H", header, source.url], check=True)


def claims(found: dict[str, Any]) -> list[Claim]:
    """The two aims, and the figures that stand behind them."""
    of_original = "of the original's time"
    return [
        Claim("deploy.original", found["original_s"], "s"),
        Claim("deploy.original_with_fsync", found["original_with_fsync_s"], "s"),
        Claim("deploy.kvm", found["kvm_s"], "s"),
        Claim("deploy.kvm_overlay_alone", found["overlay_s"], "s"),
        Claim("deploy.lxc", found["lxc_s"], "s"),
        Claim("deploy.lxc_clone_alone", found["clone_s"], "s"),
        Claim("deploy.lxc_ratio", found["lxc_ratio"], of_original),
        Claim("deploy.ratio", found["ratio"], of_original, AIM_RATIO),
        Claim("deploy.memory", found["memory_mib"], "MiB", AIM_MEMORY_MIB),
    ]


def method(found: dict[str, Any]) -> str:
    return (
        f"Cold deployment of a {DISK_BYTES // GIB} GiB disk ({found['data_bytes'] / GIB:.2f} GiB of data, "
        f"{found['stored_bytes'] / GIB:.2f} GiB packed by gzip) over loopback HTTP.\n"
        f"Medians of {ROUNDS} rounds, taking turns; source in the page cache, store empty, sync before each.\n"
        "Ours: digest and sizes verified, fsynced. Original: neither, its process starts included.\n"
        "Every deployed disk was compared with the disk byte by byte."
    )


def main() -> int:
    if sys.argv[1:2] == ["--deploy-once"]:
        print(json.dumps(asdict(deploy_once(SourceSpec(**json.load(sys.stdin)), Path(sys.argv[2])))))
        return 0
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        print(
            f"Missing tools: {', '.join(missing)}. Install them (Debian: curl gzip pv coreutils diffutils qemu-utils)."
        )
        return 2
    BUILD.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(BUILD).free < ROOM_BYTES:
        print(f"{BUILD} needs {ROOM_BYTES // GIB} GiB of free disk.")
        return 2
    with tempfile.TemporaryDirectory(dir=BUILD, prefix="deploy-") as work:
        found = measure(Path(work))
    return 0 if conclude("deploy_image", method(found), found, claims(found)) else 1


if __name__ == "__main__":
    sys.exit(main())
