"""The fake driver keeps the contract, and does what only a fake one can."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from hypervisor.contract import GuestSpec, Hypervisor, Observed, SeedSpec, Transient
from hypervisor.drivers.fake import FakeDriver
from hypervisor.drivers.fake_world import FakeFaults
from hypervisor.drivers.load import load
from hypervisor.drivers.settings import DriverSettings
from tests.hypervisor.drivers.driver_contract import PATIENCE_S, DriverContract, listening


class FakeLab:
    first_line = "fake guest {uid}: init started"

    def __init__(self, node_dir: Path) -> None:
        self.node_dir = node_dir
        self.driver = self.another_driver()
        self._count = 0

    def another_driver(self) -> FakeDriver:
        return load(Hypervisor.FAKE, DriverSettings(stack="test", node_dir=self.node_dir))

    def spec(self) -> GuestSpec:
        self._count += 1
        uid = f"i-fake{self._count:04}"
        return GuestSpec(
            uid=uid,
            slot=self._count,
            hypervisor=Hypervisor.FAKE,
            arch="x86_64",
            vcpus=1,
            memory_mib=64,
            disks=(),
            nics=(),
            seed=SeedSpec(uid, "fake"),
            console_log=str(self.node_dir / "consoles" / f"{uid}.log"),
        )

    def deaf(self) -> GuestSpec:
        return self._with(FakeFaults(ignores_poweroff=True))

    def broken(self) -> GuestSpec:
        return self._with(FakeFaults(start_fails="permanent"))

    def _with(self, faults: FakeFaults) -> GuestSpec:
        spec = self.spec()
        self.driver.world.set_faults(faults, spec.uid)
        return spec

    def wait_until_ready(self, spec: GuestSpec) -> None:
        """A fake guest is ready at once."""

    def power_off_inside(self, spec: GuestSpec) -> None:
        self.driver.world.happen(spec.uid, Observed.HALTED, "powered off")

    def kill(self, spec: GuestSpec) -> None:
        self.driver.world.happen(spec.uid, Observed.CRASHED, "died")

    def run_of(self, spec: GuestSpec) -> str:
        return (self.node_dir / "fake" / "journal").read_text()

    def leftovers(self, spec: GuestSpec) -> list[str]:
        return []


@pytest.fixture
def lab(tmp_path: Path) -> FakeLab:
    return FakeLab(tmp_path)


class TestFakeDriver(DriverContract):
    def test_an_unreachable_hypervisor_is_a_transient_fault(self, lab: FakeLab) -> None:
        lab.driver.world.set_faults(FakeFaults(unreachable=True))
        for ask in (lambda: lab.driver.observe("i-1"), lab.driver.observe_all):
            with pytest.raises(Transient):
                ask()

    def test_a_broken_line_is_told_to_those_who_listen(self, lab: FakeLab) -> None:
        with listening(lab.driver) as heard:
            lab.another_driver().world.break_line("cut by a test")
            assert heard.wait_for_loss() == "cut by a test"

    def test_listeners_follow_into_a_new_journal(self, lab: FakeLab) -> None:
        uid = "i-" + "x" * 200
        with listening(lab.driver) as heard:
            for _ in range(6000):
                lab.driver.world.happen(uid, Observed.RUNNING)
            lab.driver.world.happen(uid, Observed.HALTED)
            heard.wait_for(uid, Observed.HALTED)

    def test_a_thousand_guests_are_seen_in_a_moment(self, lab: FakeLab) -> None:
        for number in range(1000):
            lab.driver.world.happen(f"i-{number:08}", Observed.RUNNING)
        began = time.monotonic()
        assert len(lab.driver.observe_all()) == 1000
        assert time.monotonic() - began < PATIENCE_S / 30


def test_the_fake_driver_needs_no_libvirt() -> None:
    check = "import sys; import hypervisor.drivers.fake, hypervisor.drivers.load; sys.exit('libvirt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
