"""The KVM and LXC drivers on a real libvirtd: the contract of all drivers, and what is theirs alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hypervisor.contract import Observed, Permanent, Transient
from hypervisor.drivers.libvirt import idmap, loops, rootfs, syscalls
from hypervisor.drivers.libvirt.partitions import Extent
from tests.hypervisor.drivers.driver_contract import DriverContract, listening
from tests.hypervisor.noting_watch import NotingWatch
from tests.live.driver_lab import Host, KvmLab, LxcLab, host, until

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    with host(f"vdct{os.getpid()}d") as machine:  # beside the data center of other tests
        yield machine


class TestKvmDriver(DriverContract):
    @pytest.fixture
    def lab(self, machine: Host) -> Iterator[KvmLab]:
        lab = KvmLab(machine)
        yield lab
        lab.close()

    def test_the_guest_reads_its_seed(self, lab: KvmLab) -> None:
        spec = lab.spec()
        lab.driver.ensure_running(spec, NotingWatch())
        until(lambda: f"{spec.seed.hostname} login:" in lab.console(spec), "the host name from the seed")

    def test_seed_and_console_are_nobody_elses_to_read(self, lab: KvmLab) -> None:
        spec = lab.spec()
        lab.driver.ensure_running(spec, NotingWatch())
        for path in (Path(spec.console_log), lab.driver.notes.directory(spec.uid) / "seed.iso"):
            assert path.stat().st_mode & 0o077 == 0, path

    def test_a_qemu_that_is_told_to_end_did_not_power_off(self, lab: KvmLab) -> None:
        spec = lab.spec()
        with listening(lab.driver) as heard:
            lab.driver.ensure_running(spec, NotingWatch())
            os.kill(lab.qemu(spec), signal.SIGTERM)
            heard.wait_for(spec.uid, Observed.CRASHED)

    def test_a_death_that_nobody_heard_is_known_from_libvirt(self, lab: KvmLab) -> None:
        spec = lab.spec()
        lab.driver.ensure_running(spec, NotingWatch())
        lab.kill(spec)
        until(lambda: lab.driver.observe(spec.uid).state is Observed.CRASHED, "libvirt to see it")

    def test_a_paused_guest_is_seen_as_paused_and_goes_on_when_wanted(self, lab: KvmLab) -> None:
        spec = lab.spec()
        with listening(lab.driver) as heard:
            lab.driver.ensure_running(spec, NotingWatch())
            lab.domain(spec).suspend()
            heard.wait_for(spec.uid, Observed.PAUSED)
        assert lab.driver.ensure_running(spec, NotingWatch()).state is Observed.RUNNING


class TestLxcDriver(DriverContract):
    @pytest.fixture
    def lab(self, machine: Host) -> Iterator[LxcLab]:
        lab = LxcLab(machine)
        yield lab
        lab.close()

    def test_init_runs_under_the_ids_of_its_guest_and_files_stay_roots(self, lab: LxcLab) -> None:
        spec = lab.spec()
        lab.driver.ensure_running(spec, NotingWatch())
        for kind in ("uid", "gid"):
            inside, outside, count = Path(f"/proc/{lab.init(spec)}/{kind}_map").read_text().split()
            assert (int(inside), int(outside), int(count)) == (0, spec.uid_base, 65536)
        lab.run_inside(spec, "touch", "/made-inside")
        lab.driver.ensure_halted(spec, NotingWatch(), grace_s=0)
        assert owner_on_disk(lab, spec.disks[0].path, "made-inside") == 0

    def test_the_guest_reads_its_seed_and_cannot_write_it(self, lab: LxcLab) -> None:
        spec = lab.spec()
        lab.driver.ensure_running(spec, NotingWatch())
        seed = "/var/lib/cloud/seed/nocloud"
        assert f"instance-id: {spec.uid}" in lab.run_inside(spec, "cat", f"{seed}/meta-data")
        lab.run_inside(spec, "touch", f"{seed}/new")
        assert "new" not in lab.run_inside(spec, "ls", seed)

    def test_a_forced_power_off_inside_is_no_crash(self, lab: LxcLab) -> None:
        spec = lab.spec()
        with listening(lab.driver) as heard:
            lab.driver.ensure_running(spec, NotingWatch())
            heard.wait_for(spec.uid, Observed.RUNNING)
            lab.wait_until_ready(spec)
            lab.run_inside(spec, "sh", "-c", "(sleep 1; busybox poweroff -f) &")
            heard.wait_for(spec.uid, Observed.HALTED)

    def test_a_reboot_inside_keeps_the_guest(self, lab: LxcLab) -> None:
        spec = lab.spec()
        with listening(lab.driver) as heard:
            lab.driver.ensure_running(spec, NotingWatch())
            heard.wait_for(spec.uid, Observed.RUNNING)
            lab.wait_until_ready(spec)
            first = lab.init(spec)
            lab.run_inside(spec, "reboot")
            until(lambda: lab.console(spec).count(lab.first_line) == 2, "the second boot on the console")
            assert lab.init(spec) != first
            lab.wait_until_ready(spec)
            lab.kill(spec)
            assert "SIGKILL" in heard.wait_for(spec.uid, Observed.CRASHED).reason

    def test_neighbours_keep_no_disk_of_a_guest_that_ended(self, lab: LxcLab) -> None:
        first, second = lab.spec(), lab.spec()
        lab.driver.ensure_running(first, NotingWatch())
        lab.driver.ensure_running(second, NotingWatch())  # its controller copies the mount of the first one
        lab.driver.ensure_halted(first, NotingWatch(), grace_s=0)
        assert lab.leftovers(first) == []
        assert lab.driver.observe(second.uid).state is Observed.RUNNING

    def test_a_start_broken_off_after_the_mount_is_taken_up_again(self, lab: LxcLab) -> None:
        spec = lab.spec()
        rootfs.share(lab.driver.mounts_dir)
        assert rootfs.ensure_shown(spec.disks[0], spec.root_device, lab.driver.mounts_dir / spec.uid, spec.uid_base)
        assert lab.driver.ensure_running(spec, NotingWatch()).state is Observed.RUNNING
        assert len(loops.over(spec.disks[0].path)) == 1

    def test_a_loop_device_that_is_there_is_used_again(self, lab: LxcLab) -> None:
        spec = lab.spec()
        path = spec.disks[0].path
        with (
            loops.attached(path, Extent(1 << 20, 1 << 20)) as first,
            loops.attached(path, Extent(1 << 20, 1)) as second,
        ):
            assert first == second
        loops.wait_until_free(path, timeout_s=5)

    def test_a_disk_without_that_partition_is_refused(self, lab: LxcLab) -> None:
        spec = replace(lab.spec(), root_device="partition:4")
        with pytest.raises(Permanent, match="no partition 4"):
            lab.driver.ensure_running(spec, NotingWatch())
        assert lab.leftovers(spec) == []

    def test_a_disk_without_a_file_system_is_refused(self, lab: LxcLab) -> None:
        spec = lab.spec()
        with Path(spec.disks[0].path).open("r+b") as disk:
            disk.seek(1 << 20)
            disk.write(bytes(1 << 20))
        with pytest.raises(Permanent, match="cannot be mounted as ext4"):
            lab.driver.ensure_running(spec, NotingWatch())
        assert lab.leftovers(spec) == []

    def test_a_guest_may_not_have_ids_of_the_node(self, lab: LxcLab) -> None:
        spec = replace(lab.spec(), uid_base=0)
        with pytest.raises(Permanent, match="ids"):
            lab.driver.ensure_running(spec, NotingWatch())

    def test_where_the_kernel_cannot_map_owners_they_are_moved_once(
        self, lab: LxcLab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def cannot(_mount: int, _namespace: int) -> None:
            raise OSError(22, "Invalid argument")

        spec = lab.spec()
        monkeypatch.setattr(syscalls, "map_owners", cannot)
        lab.driver.ensure_running(spec, NotingWatch())
        lab.run_inside(spec, "touch", "/made-inside")
        root = lab.driver.mounts_dir / spec.uid
        assert {(root / name).stat().st_uid for name in ("sbin", "made-inside")} == {spec.uid_base}
        lab.driver.ensure_halted(spec, NotingWatch(), grace_s=0)
        monkeypatch.undo()  # the disk remembers what was done to it
        moved = replace(spec, uid_base=spec.uid_base + 10 * idmap.ID_COUNT)
        lab.driver.ensure_running(moved, NotingWatch())
        assert {(root / name).stat().st_uid for name in ("sbin", "made-inside")} == {moved.uid_base}
        assert lab.run_inside(moved, "stat", "-c", "%u", "/made-inside").strip() == "0"


class TestLibvirtd:
    @pytest.fixture
    def lab(self, machine: Host) -> Iterator[LxcLab]:
        lab = LxcLab(machine)
        yield lab
        lab.close()

    @pytest.fixture
    def kvm_lab(self, machine: Host) -> Iterator[KvmLab]:
        lab = KvmLab(machine)
        yield lab
        lab.close()

    def test_a_restart_changes_nothing_for_guests(self, lab: LxcLab, kvm_lab: KvmLab) -> None:
        container, machine = lab.spec(), kvm_lab.spec()
        lab.driver.ensure_running(container, NotingWatch())
        kvm_lab.driver.ensure_running(machine, NotingWatch())
        before = lab.init(container), kvm_lab.qemu(machine)
        with listening(lab.driver) as heard, listening(kvm_lab.driver) as heard_kvm:
            lab.host.restart_libvirtd()
            assert heard.wait_for_loss()
            assert heard_kvm.wait_for_loss()
        assert lab.driver.observe(container.uid).state is Observed.RUNNING
        assert kvm_lab.driver.observe(machine.uid).state is Observed.RUNNING
        assert (lab.init(container), kvm_lab.qemu(machine)) == before
        with listening(lab.driver) as heard:
            lab.kill(container)
            heard.wait_for(container.uid, Observed.CRASHED)

    def test_a_mute_one_is_a_transient_fault_within_seconds(self, lab: LxcLab) -> None:
        assert lab.driver.observe_all() == []
        fresh = lab.another_driver()
        pid = lab.host.libvirtd_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            for driver in (lab.driver, fresh):
                began = time.monotonic()
                with pytest.raises(Transient):
                    driver.observe_all()
                assert time.monotonic() - began < 60
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: answers(lab), "libvirtd to answer again")

    def test_foreign_domains_are_neither_seen_nor_touched(self, lab: LxcLab, kvm_lab: KvmLab) -> None:
        spec = kvm_lab.spec()
        connection = kvm_lab.driver.connection.get()
        foreign = connection.createXML(
            f"<domain type='qemu'><name>{spec.uid}</name><memory unit='MiB'>64</memory>"
            "<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
        )
        try:
            assert kvm_lab.driver.observe_all() == []
            for act in (
                lambda: kvm_lab.driver.ensure_running(spec, NotingWatch()),
                lambda: kvm_lab.driver.ensure_halted(spec, NotingWatch(), grace_s=0),
                lambda: kvm_lab.driver.ensure_absent(spec, NotingWatch()),
            ):
                with pytest.raises(Permanent, match="does not belong to the stack"):
                    act()
            assert foreign.isActive()
        finally:
            foreign.destroy()


def answers(lab: LxcLab) -> bool:
    try:
        return lab.driver.observe_all() == []
    except Transient:
        return False


def owner_on_disk(lab: LxcLab, path: str, name: str) -> int:
    """The owner of a file in the root directory of a disk, as stored."""
    argv = ["debugfs", "-R", f"stat /{name}", f"{path}?offset={1 << 20}"]
    printed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    return int(printed.partition("User:")[2].split()[0])
