"""Build the test images of the guests: `python -m deploy.guests.build [--out build/guests]`.

Leaves kvm.raw.gz, lxc.raw.gz and manifest.json in the output directory, and does nothing when they are there
already, made by the same recipe. Two builds at once do not disturb each other: the second waits for the first.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.guests import recipe
from deploy.guests.command import BuildError
from deploy.guests.disk import make_kvm_disk, make_lxc_disk
from deploy.guests.kernel import build_initrd, kernel_file
from deploy.guests.pack import pack, sha256_of
from deploy.guests.packages import fetch_packages, package_versions
from deploy.guests.rootfs import stage_rootfs

DEFAULT_OUT = Path("build/guests")
WORK_PREFIX = ".work-"

# What an image import must be told about each image.
TRAITS = {
    "kvm": {"hypervisor": "kvm", "init": "", "root_device": "", "min_memory_mib": 128},
    "lxc": {"hypervisor": "lxc", "init": "busybox", "root_device": "partition:1", "min_memory_mib": 32},
}


def build_images(out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Make sure that the images are in `out` and return the manifest, as it is in `out`/manifest.json.

    `say` is called with one short line per stage. Raises BuildError with a sentence for people.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _alone_in(out, say):
        manifest = _present_manifest(out)
        if manifest is None:
            manifest = _build(out, say)
        else:
            say("guest images: already built")
        return manifest


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build the test images of the guests from Debian packages.")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help=f"directory of the images ({DEFAULT_OUT})")
    try:
        build_images(parser.parse_args().out.absolute(), lambda line: print(line, flush=True))
    except (BuildError, OSError) as error:
        print(f"guest images: {error}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def _alone_in(out: Path, say: Callable[[str], None]) -> Iterator[None]:
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("guest images: waiting for another build to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _present_manifest(out: Path) -> dict[str, Any] | None:
    """The manifest if it is of this recipe and every image is as it says, else None."""
    try:
        manifest = json.loads((out / "manifest.json").read_text())
        if manifest["recipe"] != recipe.recipe_hash():
            return None
        whole = all(sha256_of(out / image["file"]) == image["sha256"] for image in manifest["images"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return manifest if whole else None


def _build(out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    if os.geteuid() != 0:
        raise BuildError("only root can build the images: the files in them must belong to root")
    for left_over in out.glob(f"{WORK_PREFIX}*"):  # of a build that was killed: we hold the lock
        shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(dir=out, prefix=WORK_PREFIX) as name:
        work = Path(name)
        downloads = work / "packages"
        downloads.mkdir()
        say("guest images: fetching Debian packages")
        packages = fetch_packages(downloads)
        manifest: dict[str, Any] = {
            "recipe": recipe.recipe_hash(),
            "packages": package_versions(downloads),
            "images": [],
        }
        say("guest images: laying out the root file system")
        tree = work / "tree"
        stage_rootfs(packages, tree)
        say("guest images: making the disks")
        _make_disks(work, tree, packages)
        for hypervisor, traits in TRAITS.items():
            say(f"guest images: compressing {hypervisor}.raw")
            manifest["images"].append(_pack_image(work, hypervisor, traits))
        # The manifest comes last: it vouches for files that are in their place.
        (work / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        for file in [*(image["file"] for image in manifest["images"]), "manifest.json"]:
            _publish(work / file, out / file)
    return manifest


def _make_disks(work: Path, tree: Path, packages: dict[str, Path]) -> None:
    kernel_tree = next(path for name, path in packages.items() if name.startswith("linux-image-"))
    initrd = work / "initrd.gz"
    initrd.write_bytes(build_initrd(kernel_tree, next(packages["busybox-static"].rglob("bin/busybox"))))
    make_kvm_disk(work / "kvm.raw", tree, kernel_file(kernel_tree), initrd, packages)
    make_lxc_disk(work / "lxc.raw", tree)


def _pack_image(work: Path, hypervisor: str, traits: dict[str, Any]) -> dict[str, Any]:
    file = f"{hypervisor}.raw.gz"
    packed = pack(work / f"{hypervisor}.raw", work / file)
    return {
        "name": f"vdc-guest-{hypervisor}",
        "file": file,
        "format": "gz",
        "stored_size_bytes": packed.stored_size_bytes,
        "raw_size_bytes": packed.raw_size_bytes,
        "sha256": packed.sha256,
        "arch": "x86_64",
        "os_type": "linux",
        **traits,
    }


def _publish(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(target)


if __name__ == "__main__":
    sys.exit(main())
