"""The kernel of the KVM guest and its initial ram disk, taken from a kernel package."""

from __future__ import annotations

import gzip
import lzma
import re
from dataclasses import dataclass
from pathlib import Path

from deploy.guests import recipe
from deploy.guests.command import BuildError
from deploy.guests.cpio import CpioArchive


@dataclass(frozen=True)
class Module:
    """A kernel module: its normalised name, its plain ELF content, the modules it needs."""

    name: str
    content: bytes
    needs: tuple[str, ...]


def kernel_file(kernel_tree: Path) -> Path:
    """The bootable kernel of an unpacked kernel package."""
    return _only(kernel_tree / "boot", "vmlinuz-*")


def build_initrd(kernel_tree: Path, busybox: Path) -> bytes:
    """The compressed initial ram disk: a static busybox, our init, and the modules with the order to load them in."""
    archive = CpioArchive()
    for directory in ("bin", "dev", "proc", "sys", "root", "modules"):
        archive.add_directory(directory)
    archive.add_file("bin/busybox", busybox.read_bytes(), 0o755)
    archive.add_file("init", (recipe.HERE / "initrd" / "init").read_bytes(), 0o755)
    modules = select_modules(kernel_tree, recipe.MODULES)
    for module in modules:
        archive.add_file(f"modules/{module.name}.ko", module.content, 0o644)
    order = "".join(f"{module.name}.ko\n" for module in modules)
    archive.add_file("modules/load-order", order.encode(), 0o644)
    return gzip.compress(archive.finish(), compresslevel=6, mtime=0)


def select_modules(kernel_tree: Path, wanted: tuple[str, ...]) -> list[Module]:
    """The wanted modules and all that they need, in an order that can be loaded; built-in ones are left out."""
    directory = _only(kernel_tree / "lib" / "modules", "*")
    builtin = {_name(Path(line)) for line in (directory / "modules.builtin").read_text().splitlines()}
    paths = {_name(path): path for path in directory.rglob("*.ko*")}
    chosen: dict[str, Module] = {}

    def choose(name: str) -> None:
        if name in builtin or name in chosen:
            return
        if name not in paths:
            raise BuildError(f"The kernel package has no module {name}")
        module = _read_module(paths[name])
        for needed in module.needs:
            choose(needed)
        chosen[name] = module

    for name in wanted:
        choose(name)
    return list(chosen.values())


def _read_module(path: Path) -> Module:
    content = path.read_bytes()
    if path.suffix == ".xz":
        content = lzma.decompress(content)
    found = re.search(rb"\0depends=([^\0]*)\0", content)
    needs = found.group(1).decode().split(",") if found and found.group(1) else []
    return Module(_name(path), content, tuple(need.replace("-", "_") for need in needs))


def _name(path: Path) -> str:
    return path.name.split(".")[0].replace("-", "_")


def _only(directory: Path, pattern: str) -> Path:
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise BuildError(f"Expected one {pattern} in {directory}, found {len(found)}")
    return found[0]
