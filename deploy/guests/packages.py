"""Fetch Debian packages with apt and unpack them, without installing anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.guests import recipe
from deploy.guests.command import BuildError, run

ATTEMPTS = 3


def fetch_packages(directory: Path) -> dict[str, Path]:
    """Download and unpack all packages of the recipe below `directory`: {name: tree}.

    Lists of packages that are missing or out of date are brought up to date on the way.
    """
    failures: list[str] = []
    for _ in range(ATTEMPTS):
        try:
            _download(directory)
            break
        except BuildError as error:
            failures.append(str(error))
        try:
            run(["apt-get", "update"])
        except BuildError as error:  # another apt may hold its lock; the next download shows what is left
            failures.append(str(error))
    else:
        raise BuildError("The Debian packages of the guests cannot be fetched:\n" + "\n".join(dict.fromkeys(failures)))
    trees = {}
    for archive in sorted(directory.glob("*.deb")):
        name = run(["dpkg-deb", "--field", archive, "Package"]).strip()
        trees[name] = directory / name
        run(["dpkg-deb", "--extract", archive, trees[name]])
    return trees


def package_versions(directory: Path) -> dict[str, str]:
    """{name: version} of the packages downloaded to `directory`."""
    versions = {}
    for archive in sorted(directory.glob("*.deb")):
        fields = run(["dpkg-deb", "--show", "--showformat=${Package} ${Version}", archive])
        name, version = fields.split()
        versions[name] = version
    return versions


def _download(directory: Path) -> None:
    names = [*_kernel_packages(), *_with_dependencies(recipe.PROGRAM_PACKAGES), *recipe.OTHER_PACKAGES]
    # apt's own user may not write to our directory; the signed checksums protect the content all the same.
    run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *names], cwd=directory)


def _kernel_packages() -> list[str]:
    lines = run(["apt-cache", "depends", "--important", recipe.KERNEL_PACKAGE]).splitlines()
    names = [line.split()[-1] for line in lines if line.strip().startswith("Depends: linux-image-")]
    if not names:
        raise BuildError(f"{recipe.KERNEL_PACKAGE} names no kernel package that it depends on")
    return names[:1]


def _with_dependencies(packages: Sequence[str]) -> list[str]:
    lines = run(["apt-cache", "depends", "--important", "--recurse", *packages]).splitlines()
    return [line for line in lines if line and not line.startswith((" ", "<", "|")) and ":" not in line]
