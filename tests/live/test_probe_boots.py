"""Real QEMU boots real and false kernels; whatever the outcome, no QEMU is left."""

from __future__ import annotations

import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from hypervisor.nat import dropping_chains
from hypervisor.probe import probe_node, qemu_version, read_boot_id
from hypervisor.probe_kvm import boot_linux, find_kernel, kvm_works
from tests.live.network_lab import NetworkLab, inside

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Linux kernel: the host's, or Debian's, downloaded as the probe does it."""
    return find_kernel(tmp_path_factory.mktemp("kernel"), None)


def _false_kernel(path: Path, code: bytes) -> Path:
    """What looks like a 64-bit Linux and in truth runs `code` (16 bits, real mode) and then halts."""
    header = bytearray(0x400)
    header[0x1F1] = 1  # one sector of set-up code
    header[0x1FE:0x200] = b"\x55\xaa"
    header[0x200:0x202] = b"\xeb\x66"  # jump over the header
    header[0x202:0x206] = b"HdrS"
    header[0x206:0x208] = struct.pack("<H", 0x020C)
    header[0x211] = 1  # loaded high
    header[0x22C:0x230] = struct.pack("<I", 0x37FFFFFF)  # where a ram disk may end
    header[0x236] = 1  # has a 64-bit entry
    program = code + b"\xf4\xeb\xfd"  # hlt, for ever
    header[0x268 : 0x268 + len(program)] = program
    path.write_bytes(bytes(header) + bytes(4096))
    return path


def _say(text: bytes) -> bytes:
    """Code that prints on the serial port."""
    return b"\xba\xf8\x03" + b"".join(b"\xb0" + bytes([byte]) + b"\xee" for byte in text)


def _qemus_of(kernel: Path) -> list[str]:
    return [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if str(kernel).encode() in _read(path)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_a_linux_that_boots_is_recognised(kernel: Path) -> None:
    trial = boot_linux(kernel, "tcg", timeout_s=120)
    assert trial.works, trial.why
    assert _qemus_of(kernel) == []


def test_a_kernel_that_prints_nothing_does_not_work(tmp_path: Path) -> None:
    silent = _false_kernel(tmp_path / "silent", b"")
    trial = boot_linux(silent, "tcg", timeout_s=3)
    assert not trial.works
    assert "within 3 seconds" in trial.why
    assert _qemus_of(silent) == []


def test_a_kernel_that_stops_half_way_does_not_work_and_its_last_words_are_told(tmp_path: Path) -> None:
    stuck = _false_kernel(tmp_path / "stuck", _say(b"going to freeze"))
    trial = boot_linux(stuck, "tcg", timeout_s=5)
    assert not trial.works
    assert "going to freeze" in trial.why


def test_a_qemu_that_ends_tells_why(tmp_path: Path) -> None:
    trial = boot_linux(tmp_path / "missing", "tcg")
    assert not trial.works
    assert "could not" in trial.why


def test_the_node_says_kvm_only_if_a_linux_was_seen_to_boot_under_it(kernel: Path, tmp_path: Path) -> None:
    facts = probe_node(tmp_path, kernel=kernel)
    tried = kvm_works(
        tmp_path,
        boot_id=read_boot_id(),
        qemu_version=qemu_version(),
        kernel=kernel,
        qemu_user="libvirt-qemu",
        device=Path("/dev/kvm"),
    )
    assert facts.acceleration == ("kvm" if tried.works else "tcg")
    assert any("emulated" in sentence for sentence in facts.warnings) is not tried.works
    assert _qemus_of(kernel) == []


def test_a_host_firewall_that_drops_by_policy_is_seen() -> None:
    rules = "add table ip filter\nadd chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }\n"
    with ExitStack() as cleanup:
        node = NetworkLab(cleanup).node
        inside(node, lambda: subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True))
        assert inside(node, dropping_chains) == ["ip filter FORWARD (forward)"]
