"""Whether KVM really runs a 64-bit Linux: a kernel is booted, and must get as far as a program that prints a line.

/dev/kvm may exist, libvirt may advertise it, a boot sector may even run, and Linux freezes all the same: some hosts
emulate what the processor of their own virtual machine lacks, instruction by instruction, and not all of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import select
import struct
import subprocess
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from hypervisor.commands import run
from hypervisor.contract import Permanent, Transient
from hypervisor.whole_files import write_whole

QEMU = "qemu-system-x86_64"
TIMEOUT_S = 10.0
HOST_KERNELS = Path("/boot")
PACKAGE = "linux-image-cloud-amd64"
_MARK = b"vdc-probe: a program runs"
_CACHE = "kvm-probe.json"
_DOWNLOAD_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class BootTrial:
    """How one boot went. `why` is empty when it worked, else the end of a sentence: "…, because <why>"."""

    works: bool
    why: str = ""


def kvm_works(
    cache_dir: Path, *, boot_id: str, qemu_version: str, kernel: Path | None, qemu_user: str, device: Path
) -> BootTrial:
    """Whether guests may use KVM here. A boot takes up to 10 s; its outcome is kept for this boot, QEMU and kernel.

    `kernel` is used where the host shows none in /boot; without either, Debian's is downloaded into `cache_dir`.
    """
    if not device.exists():
        return BootTrial(
            False, f"there is no {device}: no virtualization in the processor, or its module is not loaded"
        )
    try:
        trial = _tried(cache_dir, boot_id, qemu_version, find_kernel(cache_dir, kernel))
    except (Permanent, Transient) as fault:
        return BootTrial(False, f"no Linux kernel was found to try it with: {fault.message}")
    if trial.works and not _may_use(qemu_user, device):
        return BootTrial(False, f"user {qemu_user}, which QEMU runs as, may not write to {device}")
    return trial


def _tried(cache_dir: Path, boot_id: str, qemu_version: str, image: Path) -> BootTrial:
    with image.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    key = {"boot_id": boot_id, "qemu_version": qemu_version, "kernel_sha256": digest}
    known = _remembered(cache_dir, key)
    if known is not None:
        return known
    trial = boot_linux(image, "kvm")
    write_whole(cache_dir / _CACHE, json.dumps({"key": key, "trial": asdict(trial)}))
    return trial


def boot_linux(kernel: Path, accelerator: str, *, timeout_s: float = TIMEOUT_S) -> BootTrial:
    """Boot `kernel` with a tiny program as its init under "kvm" or "tcg" and wait for the program's line."""
    with tempfile.TemporaryDirectory(prefix="vdc-probe-") as directory:
        initrd = Path(directory) / "initrd"
        initrd.write_bytes(render_initrd())
        argv = [
            *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-machine", "q35", "-accel", accelerator, "-cpu", "host" if accelerator == "kvm" else "max"),
            *("-m", "256", "-serial", "stdio"),
            *("-kernel", str(kernel), "-initrd", str(initrd), "-append", "console=ttyS0 quiet panic=-1 rdinit=/init"),
        ]
        try:
            qemu = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,
            )
        except FileNotFoundError:
            return BootTrial(False, f"{QEMU} is not installed")
        with qemu:
            try:
                return _await_line(qemu.stdout.fileno(), timeout_s)
            finally:
                qemu.kill()


def _await_line(serial: int, timeout_s: float) -> BootTrial:
    said = b""
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([serial], [], [], left)[0]:
            break
        piece = os.read(serial, 65536)
        if not piece:
            return BootTrial(False, f"QEMU ended: {_last_words(said)}")
        said = (said + piece)[-65536:]
        if _MARK in said:
            return BootTrial(True)
        if b"KVM internal error" in said:
            return BootTrial(False, f"QEMU reported: {_last_words(said[said.index(b'KVM internal error') :][:100])}")
    return BootTrial(
        False, f"a Linux kernel did not come to its first program within {timeout_s:g} seconds ({_last_words(said)})"
    )


def _last_words(said: bytes) -> str:
    text = " ".join(said.decode(errors="replace").split())
    return text[-300:].rstrip(".") or "it said nothing"


def find_kernel(cache_dir: Path, kernel: Path | None) -> Path:
    """A 64-bit Linux kernel: the newest of the host, else `kernel`, else Debian's, downloaded once into `cache_dir`."""
    of_host = sorted(HOST_KERNELS.glob("vmlinuz-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    downloaded = cache_dir / "vmlinuz"
    for path in [*of_host, *([kernel] if kernel else []), downloaded]:
        if is_linux_64(path):
            return path
    _download_kernel(downloaded)
    if not is_linux_64(downloaded):
        raise Permanent(f"The kernel in Debian's package {PACKAGE} is not a 64-bit Linux for x86.")
    return downloaded


def is_linux_64(path: Path) -> bool:
    """Whether a readable file starts like a bzImage with a 64-bit entry (Linux/x86 boot protocol 2.12)."""
    try:
        with path.open("rb") as file:
            head = file.read(0x238)
    except OSError:
        return False
    return len(head) == 0x238 and head[0x202:0x206] == b"HdrS" and bool(head[0x236] & 1)


def _download_kernel(target: Path) -> None:
    depends = run(["apt-cache", "depends", "--important", PACKAGE], timeout_s=60)
    names = [line.split()[-1] for line in depends.stdout.splitlines() if "Depends: linux-image-" in line]
    if not names:
        raise Permanent(f"apt knows no package {PACKAGE}.", advice="Run apt-get update, or give a kernel.")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".kernel-") as directory:
        # apt's own user may not write here; signatures protect the content all the same.
        sandbox = ["-o", "APT::Sandbox::User=root", "-o", f"Dir::Cache::archives={directory}"]
        fetch = ["apt-get", "-q", *sandbox, "download", names[0]]
        done = run(["env", "-C", directory, *fetch], timeout_s=_DOWNLOAD_TIMEOUT_S)
        packages = list(Path(directory).glob("*.deb"))
        if done.returncode != 0 or not packages:
            raise Transient(f"apt could not download {names[0]}: {done.stderr.strip()[-300:]}")
        _take_kernel(packages[0], target)


def _take_kernel(package: Path, target: Path) -> None:
    """Read /boot/vmlinuz-* out of a Debian package without unpacking the rest."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as unpacking:
        try:
            with tarfile.open(fileobj=unpacking.stdout, mode="r|") as files:
                for entry in files:
                    content = files.extractfile(entry) if "boot/vmlinuz-" in entry.name else None
                    if content is not None:
                        temporary = target.with_name(".vmlinuz")
                        temporary.write_bytes(content.read())
                        temporary.replace(target)
                        return
        finally:
            unpacking.kill()
    raise Permanent(f"The package {package.name} holds no kernel.")


def _may_use(user: str, device: Path) -> bool:
    """Whether QEMU's user may open the device, asked as that user: groups and access lists count too."""
    if os.geteuid() != 0:
        return os.access(device, os.R_OK | os.W_OK)
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return True  # QEMU runs as somebody else here; libvirt will say
    asked = subprocess.run(
        ["test", "-r", str(device), "-a", "-w", str(device)],
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=os.getgrouplist(user, account.pw_gid),
        check=False,
    )
    return asked.returncode == 0


def _remembered(cache_dir: Path, key: dict[str, str]) -> BootTrial | None:
    try:
        kept = json.loads((cache_dir / _CACHE).read_text())
        return BootTrial(**kept["trial"]) if kept["key"] == key else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def render_initrd() -> bytes:
    """An initial ram disk (cpio, "newc") with a console and one program that prints a line and then waits."""
    return b"".join(
        (
            _cpio_entry("dev", 0o040755),
            _cpio_entry("dev/console", 0o020600, device=(5, 1)),
            _cpio_entry("init", 0o100755, render_program()),
            _cpio_entry("TRAILER!!!", 0),
        )
    )


def render_program() -> bytes:
    """A static ELF program for x86-64: write(1, line); then pause() for ever."""
    line = b"\n" + _MARK + b"\n"
    code = b"".join(
        (
            b"\xb8\x01\x00\x00\x00",  # mov eax, 1 (write)
            b"\xbf\x01\x00\x00\x00",  # mov edi, 1 (standard output)
            b"\x48\x8d\x35" + struct.pack("<i", 5 + 2 + 5 + 2 + 2),  # lea rsi, [rip + to the line]
            b"\xba" + struct.pack("<i", len(line)),  # mov edx, its length
            b"\x0f\x05",  # syscall
            b"\xb8\x22\x00\x00\x00",  # mov eax, 34 (pause)
            b"\x0f\x05",  # syscall
            b"\xeb\xf7",  # jump back to the last mov
        )
    )
    base, header_size = 0x400000, 64 + 56
    size = header_size + len(code) + len(line)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + header_size, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return header + segment + code + line


def _cpio_entry(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    encoded = name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device (2), special device (2), length of the name, checksum
    numbers = (0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers)
    return _to_four(header + encoded) + _to_four(content)


def _to_four(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
