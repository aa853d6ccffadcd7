"""The fake driver: a hypervisor in a directory of small files, for trying out, for tests and for scale."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from hypervisor.contract import (
    CommandRecord,
    GuestFacts,
    GuestSpec,
    Hypervisor,
    Observation,
    Observed,
    Permanent,
    Transient,
    Watch,
)
from hypervisor.drivers.fake_world import FakeFaults, FakeWorld
from hypervisor.drivers.settings import DriverSettings

LOOK_AGAIN_S = 0.05


class FakeDriver:
    """Guests that exist as words only. All processes of a node see the same ones; they survive every process.

    `world` is the place to make things happen behind the driver's back and to set faults.
    """

    hypervisor = Hypervisor.FAKE

    def __init__(self, settings: DriverSettings) -> None:
        self.settings = settings
        self.world = FakeWorld(settings.node_dir / "fake")

    def ensure_running(self, spec: GuestSpec, watch: Watch) -> Observation:
        faults = self._reach(spec.uid)
        seen = self.world.look(spec.uid)
        if seen.state is Observed.RUNNING:
            return seen
        watch.checkpoint()
        if faults.start_delay_s:
            watch.pause(faults.start_delay_s)
        if faults.start_fails == "transient":
            raise Transient(f"starting {spec.uid}: the fake hypervisor was told to fail", advice="Try again.")
        if faults.start_fails:
            raise Permanent(f"starting {spec.uid}: the fake hypervisor was told to fail", advice="Clear the fault.")
        if spec.console_log:
            log = Path(spec.console_log)
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a") as file:
                file.write(f"fake guest {spec.uid}: init started\n")
        watch.ran(CommandRecord(argv=("fake", "start", spec.uid), exit_code=0))
        self.world.make(GuestFacts(spec.uid, spec.vcpus, spec.memory_mib, spec.disks, spec.nics))
        return self.world.happen(spec.uid, Observed.RUNNING)

    def ensure_halted(self, spec: GuestSpec, watch: Watch, *, grace_s: float) -> Observation:
        faults = self._reach(spec.uid)
        if self.world.look(spec.uid).state not in (Observed.RUNNING, Observed.PAUSED):
            return self.world.happen(spec.uid, Observed.HALTED, "was off")
        watch.checkpoint()
        began = time.monotonic()
        if grace_s and not faults.ignores_poweroff:
            watch.pause(faults.poweroff_delay_s)
            watch.ran(CommandRecord(argv=("fake", "shutdown", spec.uid), exit_code=0))
            return self.world.happen(spec.uid, Observed.HALTED, "powered off when asked")
        while (waited := time.monotonic() - began) < grace_s:
            watch.progress(int(waited), int(grace_s), "seconds")
            watch.pause(min(LOOK_AGAIN_S, grace_s - waited))
        watch.ran(CommandRecord(argv=("fake", "destroy", spec.uid), exit_code=0))
        reason = f"unplugged after {grace_s:.0f} s without an answer" if grace_s else "unplugged"
        return self.world.happen(spec.uid, Observed.HALTED, reason)

    def ensure_absent(self, spec: GuestSpec, watch: Watch) -> Observation:
        self._reach(spec.uid)
        watch.checkpoint()
        if spec.console_log:
            Path(spec.console_log).unlink(missing_ok=True)
        return self.world.happen(spec.uid, Observed.ABSENT)

    def release(self, uid: str) -> None:
        self._reach(uid)

    def observe(self, uid: str) -> Observation:
        self._reach(uid)
        return self.world.look(uid)

    def describe(self, uid: str) -> GuestFacts | None:
        self._reach(uid)
        return self.world.made_of(uid)

    def observe_all(self) -> list[Observation]:
        self._reach("")
        return self.world.look_at_all()

    def listen(self, heard: Callable[[Observation], None], lost: Callable[[str], None]) -> Callable[[], None]:
        self._reach("")
        return self.world.listen(heard, lost)

    def _reach(self, uid: str) -> FakeFaults:
        """The faults set for a guest; Transient when the whole hypervisor is set to be away."""
        faults = self.world.faults(uid)
        if faults.unreachable:
            raise Transient("the fake hypervisor was told not to answer", advice="Clear the fault.")
        return faults
