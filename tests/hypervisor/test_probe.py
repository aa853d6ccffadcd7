"""What the probe makes of what it sees; real boots are in tests/live."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from hypervisor import probe, probe_kvm
from hypervisor.contract import Hypervisor, Transient
from hypervisor.drivers.libvirt.capabilities import DriverAnswer, ask_drivers, has_idmapped_mounts
from hypervisor.probe_kvm import BootTrial, find_kernel, is_linux_64, kvm_works, render_initrd, render_program


def _kernel(path: Path, *, magic: bytes = b"HdrS", flags: int = 1) -> Path:
    path.write_bytes(bytes(0x202) + magic + bytes(0x30) + struct.pack("<H", flags) + b"kernel")
    return path


@pytest.fixture
def device() -> Path:
    """Something that everybody may write to, in the place of /dev/kvm."""
    return Path(os.devnull)


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Kernels that were booted; each boot works."""
    booted: list[Path] = []

    def boot(kernel: Path, accelerator: str) -> BootTrial:
        booted.append(kernel)
        return BootTrial(True)

    monkeypatch.setattr(probe_kvm, "boot_linux", boot)
    return booted


def _works(cache: Path, kernel: Path, device: Path, **changes: str) -> BootTrial:
    asked = {"boot_id": "boot-1", "qemu_version": "7.2", "qemu_user": "nobody", **changes}
    return kvm_works(cache, kernel=kernel, device=device, **asked)


@pytest.fixture(autouse=True)
def _no_kernel_in_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_kvm, "HOST_KERNELS", Path("/nonexistent"))


def test_without_the_device_nothing_is_booted(tmp_path: Path, boots: list[Path]) -> None:
    trial = _works(tmp_path, _kernel(tmp_path / "k"), tmp_path / "kvm")
    assert not trial.works
    assert f"there is no {tmp_path}/kvm" in trial.why
    assert boots == []


def test_a_kernel_is_booted_once_per_boot_of_the_machine(tmp_path: Path, boots: list[Path], device: Path) -> None:
    kernel = _kernel(tmp_path / "k")
    assert _works(tmp_path, kernel, device) == BootTrial(True)
    assert _works(tmp_path, kernel, device) == BootTrial(True)
    assert boots == [kernel]


@pytest.mark.parametrize("change", [{"boot_id": "boot-2"}, {"qemu_version": "8.0"}])
def test_another_boot_or_qemu_is_tried_anew(
    tmp_path: Path, boots: list[Path], device: Path, change: dict[str, str]
) -> None:
    kernel = _kernel(tmp_path / "k")
    _works(tmp_path, kernel, device)
    _works(tmp_path, kernel, device, **change)
    assert len(boots) == 2


def test_another_kernel_is_tried_anew(tmp_path: Path, boots: list[Path], device: Path) -> None:
    kernel = _kernel(tmp_path / "k")
    _works(tmp_path, kernel, device)
    kernel.write_bytes(kernel.read_bytes() + b"patched")
    _works(tmp_path, kernel, device)
    assert len(boots) == 2


def test_a_torn_cache_is_no_answer(tmp_path: Path, boots: list[Path], device: Path) -> None:
    kernel = _kernel(tmp_path / "k")
    _works(tmp_path, kernel, device)
    (tmp_path / "kvm-probe.json").write_text('{"key": ')
    assert _works(tmp_path, kernel, device).works
    assert len(boots) == 2


def test_kvm_that_the_user_of_qemu_may_not_use_does_not_work(tmp_path: Path, boots: list[Path]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can ask as another user")
    device = tmp_path / "kvm"
    device.touch(mode=0o600)
    trial = _works(tmp_path, _kernel(tmp_path / "k"), device)
    assert trial == BootTrial(False, f"user nobody, which QEMU runs as, may not write to {device}")


def test_the_newest_readable_kernel_of_the_host_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = _kernel(tmp_path / "given")
    boot = tmp_path / "boot"
    boot.mkdir()
    monkeypatch.setattr(probe_kvm, "HOST_KERNELS", boot)
    assert find_kernel(tmp_path, given) == given
    old, new = _kernel(boot / "vmlinuz-6.1"), _kernel(boot / "vmlinuz-6.12")
    os.utime(old, (1, 1))
    assert find_kernel(tmp_path, given) == new
    new.write_bytes(b"torn")
    assert find_kernel(tmp_path, given) == old


@pytest.mark.parametrize("wrong", [{"magic": b"XXXX"}, {"flags": 0}])
def test_a_file_that_is_no_64_bit_linux_is_passed_over(tmp_path: Path, wrong: dict[str, object]) -> None:
    assert is_linux_64(_kernel(tmp_path / "good"))
    assert not is_linux_64(_kernel(tmp_path / "bad", **wrong))
    assert not is_linux_64(tmp_path / "missing")


def test_a_kernel_that_cannot_be_fetched_is_told_as_the_reason(
    tmp_path: Path, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(target: Path) -> None:
        raise Transient("apt could not download linux-image: no network")

    monkeypatch.setattr(probe_kvm, "_download_kernel", refuse)
    trial = kvm_works(tmp_path, boot_id="b", qemu_version="7", kernel=None, qemu_user="nobody", device=device)
    assert not trial.works
    assert "no network" in trial.why


def test_the_program_of_the_ram_disk_runs_and_prints_its_line(tmp_path: Path) -> None:
    program = tmp_path / "init"
    program.write_bytes(render_program())
    program.chmod(0o755)
    with subprocess.Popen([program], stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout.readline() == b"\n"
            assert running.stdout.readline() == b"vdc-probe: a program runs\n"
            assert running.poll() is None
        finally:
            running.kill()


def test_the_ram_disk_is_an_archive_of_three_entries() -> None:
    archive = render_initrd()
    assert archive.count(b"070701") == 4
    assert archive.endswith(b"TRAILER!!!" + bytes(4))


def _answers(monkeypatch: pytest.MonkeyPatch, *, kvm: str = "", lxc: str = "", user_namespace: str = "") -> None:
    answers = [DriverAnswer(Hypervisor.KVM, kvm), DriverAnswer(Hypervisor.LXC, lxc)]
    monkeypatch.setattr(probe, "ask_drivers", lambda socket, arch: answers)
    monkeypatch.setattr(probe, "user_namespace_fault", lambda: user_namespace)
    monkeypatch.setattr(probe, "dropping_chains", list)
    monkeypatch.setattr(probe, "kvm_works", lambda *_, **__: BootTrial(True))
    monkeypatch.setattr(probe, "qemu_version", lambda: "QEMU emulator version 7.2")


def test_a_machine_that_can_do_all_has_no_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch)
    monkeypatch.setattr(probe, "has_idmapped_mounts", lambda: True)
    facts = probe.probe_node(tmp_path / "node" / "cache")
    assert (facts.drivers, facts.acceleration, facts.warnings) == ((Hypervisor.KVM, Hypervisor.LXC), "kvm", ())
    assert facts.vcpus >= 1
    assert facts.memory_mib > 64
    assert 0 < facts.disk_free_bytes <= facts.disk_total_bytes
    assert len(facts.boot_id) == 36


def test_what_a_node_lacks_is_told_in_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, kvm="libvirtd did not answer", user_namespace="no user namespaces")
    monkeypatch.setattr(probe, "has_idmapped_mounts", lambda: False)
    monkeypatch.setattr(probe, "kvm_works", lambda *_, **__: BootTrial(False, "it froze"))
    monkeypatch.setattr(probe, "dropping_chains", lambda: ["ip filter FORWARD (forward)"])
    facts = probe.probe_node(tmp_path)
    assert facts.drivers == ()
    assert facts.acceleration == "tcg"
    assert facts.warnings[0] == "No KVM guests on this node: libvirtd did not answer."
    assert facts.warnings[1] == "No LXC guests on this node: no user namespaces."
    assert "idmapped mounts" in facts.warnings[2]
    assert facts.warnings[3].endswith("KVM does not work on this machine, because it froze.")
    assert "ip filter FORWARD (forward)" in facts.warnings[4]


def test_a_machine_without_qemu_has_no_kvm_guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch)
    monkeypatch.setattr(probe, "qemu_version", lambda: "")
    facts = probe.probe_node(tmp_path)
    assert facts.drivers == (Hypervisor.LXC,)
    assert "qemu-system-x86_64 is not installed" in facts.warnings[0]


def test_a_libvirtd_that_is_not_there_is_told_not_raised(tmp_path: Path) -> None:
    for answer in ask_drivers(tmp_path / "libvirt-sock", "x86_64"):
        assert str(tmp_path / "libvirt-sock") in answer.fault


def test_idmapped_mounts_are_found_where_the_kernel_is_new_enough() -> None:
    major, minor = (int(number) for number in os.uname().release.split(".")[:2])
    if os.geteuid() == 0:
        assert has_idmapped_mounts() == ((major, minor) >= (5, 12))
