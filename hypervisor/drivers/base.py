"""What every hypervisor driver promises; one set of contract tests holds for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from hypervisor.contract import GuestFacts, GuestSpec, Hypervisor, Observation, Watch


class Driver(Protocol):
    """Turns specs into guests. `ensure_` verbs may be called again at any time: the same spec changes nothing.

    Raises only the faults of contract.py (Transient, Permanent, Cancelled, Fenced); never touches the database.
    Only what a call made itself is unmade when it fails.
    """

    hypervisor: Hypervisor

    def ensure_running(self, spec: GuestSpec, watch: Watch) -> Observation:
        """Make everything the guest needs (seed, mounts, definition), start it, and say that it runs."""

    def ensure_halted(self, spec: GuestSpec, watch: Watch, *, grace_s: float) -> Observation:
        """Ask the guest to power off; after `grace_s` seconds pull the plug. 0: at once.

        Gives back all that belongs to a running guest only (mounts, loop devices, domain). Disks stay.
        """

    def ensure_absent(self, spec: GuestSpec, watch: Watch) -> Observation:
        """Pull the plug and leave nothing of the guest but its disks: no domain, mount, seed, console log."""

    def release(self, uid: str) -> None:
        """Give back what a guest that ended by itself left behind (mounts, loop devices)."""

    def observe(self, uid: str) -> Observation:
        """One look. Raises Transient when the hypervisor cannot be asked."""

    def describe(self, uid: str) -> GuestFacts | None:
        """What a guest is made of; None when the hypervisor has nothing of it but a memory. Raises as `observe`."""

    def observe_all(self) -> list[Observation]:
        """A look at every guest of this driver that the node knows, foreign domains not included."""

    def listen(self, heard: Callable[[Observation], None], lost: Callable[[str], None]) -> Callable[[], None]:
        """Call `heard` from a thread for every change of any guest, `lost` with a reason when the line breaks.

        Returns a function that ends listening.
        """
