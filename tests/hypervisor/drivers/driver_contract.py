"""What every driver must keep, as one set of tests; each driver's test file brings a `lab` to run them in."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from hypervisor.contract import Cancelled, GuestSpec, Observation, Observed, Permanent
from hypervisor.drivers.base import Driver
from tests.hypervisor.noting_watch import NotingWatch

PATIENCE_S = 90


class Lab(Protocol):
    """A driver and the guests to try it with. All guests of a lab are gone after each test."""

    driver: Driver
    first_line: str

    def spec(self) -> GuestSpec:
        """A guest that obeys; each call another one."""

    def deaf(self) -> GuestSpec:
        """A guest that ignores the wish to power off."""

    def broken(self) -> GuestSpec:
        """A guest that cannot be started."""

    def another_driver(self) -> Driver:
        """The same driver as another process would load it."""

    def wait_until_ready(self, spec: GuestSpec) -> None:
        """Wait until the guest can hear."""

    def power_off_inside(self, spec: GuestSpec) -> None: ...

    def kill(self, spec: GuestSpec) -> None: ...

    def run_of(self, spec: GuestSpec) -> object:
        """What differs between two runs of one guest."""

    def leftovers(self, spec: GuestSpec) -> list[str]:
        """What belongs to a running guest only and is still there."""


class Heard:
    """Listens and keeps the news."""

    def __init__(self) -> None:
        self.news: queue.Queue[Observation | str] = queue.Queue()

    def wait_for(self, uid: str, state: Observed) -> Observation:
        deadline = time.monotonic() + PATIENCE_S
        while (left := deadline - time.monotonic()) > 0:
            news = self.news.get(timeout=left)
            if isinstance(news, Observation) and (news.uid, news.state) == (uid, state):
                return news
        raise AssertionError(f"nobody said that {uid} is {state}")

    def wait_for_loss(self) -> str:
        deadline = time.monotonic() + PATIENCE_S
        while not isinstance(news := self.news.get(timeout=max(0.1, deadline - time.monotonic())), str):
            pass
        return news


@contextmanager
def listening(driver: Driver) -> Iterator[Heard]:
    heard = Heard()
    stop = driver.listen(heard.news.put, heard.news.put)
    try:
        yield heard
    finally:
        stop()


class DriverContract:
    def test_an_unknown_guest_is_absent(self, lab: Lab) -> None:
        assert lab.driver.observe("i-nobody00").state is Observed.ABSENT

    def test_the_same_spec_twice_changes_nothing(self, lab: Lab) -> None:
        spec = lab.spec()
        assert lab.driver.ensure_running(spec, NotingWatch()).state is Observed.RUNNING
        first = lab.run_of(spec)
        again = NotingWatch()
        assert lab.driver.ensure_running(spec, again).state is Observed.RUNNING
        assert lab.run_of(spec) == first
        assert again.commands == []

    def test_all_guests_of_the_driver_are_seen_in_one_look(self, lab: Lab) -> None:
        runs, halted = lab.spec(), lab.spec()
        lab.driver.ensure_running(runs, NotingWatch())
        lab.driver.ensure_running(halted, NotingWatch())
        lab.driver.ensure_halted(halted, NotingWatch(), grace_s=0)
        seen = {look.uid: look.state for look in lab.driver.observe_all()}
        assert seen == {runs.uid: Observed.RUNNING, halted.uid: Observed.HALTED}

    def test_a_running_guest_is_described_as_it_was_made(self, lab: Lab) -> None:
        spec = lab.spec()
        lab.driver.ensure_running(spec, NotingWatch())
        made = lab.another_driver().describe(spec.uid)
        assert made is not None
        assert (made.uid, made.vcpus, made.memory_mib) == (spec.uid, spec.vcpus, spec.memory_mib)
        assert [(disk.uid, disk.path, disk.format, disk.boot) for disk in made.disks] == [
            (disk.uid, disk.path, disk.format, disk.boot) for disk in spec.disks
        ]
        assert all(disk.size_bytes > 0 for disk in made.disks)
        assert [(nic.mac, nic.bridge, nic.host_interface) for nic in made.nics] == [
            (nic.mac, nic.bridge, nic.host_interface) for nic in spec.nics
        ]

    def test_nothing_describes_a_guest_that_was_never_there_or_is_gone(self, lab: Lab) -> None:
        spec = lab.spec()
        assert lab.driver.describe(spec.uid) is None
        lab.driver.ensure_running(spec, NotingWatch())
        lab.driver.ensure_absent(spec, NotingWatch())
        assert lab.driver.describe(spec.uid) is None

    def test_a_guest_powers_off_when_asked_and_gives_back_what_it_had(self, lab: Lab) -> None:
        spec = lab.spec()
        lab.driver.ensure_running(spec, NotingWatch())
        lab.wait_until_ready(spec)
        seen = lab.driver.ensure_halted(spec, NotingWatch(), grace_s=PATIENCE_S)
        assert (seen.state, seen.reason) == (Observed.HALTED, "powered off when asked")
        assert lab.driver.observe(spec.uid).state is Observed.HALTED
        assert lab.leftovers(spec) == []

    def test_powering_off_twice_is_powering_off_once(self, lab: Lab) -> None:
        spec = lab.spec()
        lab.driver.ensure_running(spec, NotingWatch())
        lab.driver.ensure_halted(spec, NotingWatch(), grace_s=0)
        again = NotingWatch()
        assert lab.driver.ensure_halted(spec, again, grace_s=60).state is Observed.HALTED
        assert again.commands == []

    def test_no_grace_pulls_the_plug_at_once(self, lab: Lab) -> None:
        spec = lab.deaf()
        lab.driver.ensure_running(spec, NotingWatch())
        assert lab.driver.ensure_halted(spec, NotingWatch(), grace_s=0).reason == "unplugged"
        assert lab.leftovers(spec) == []

    def test_a_guest_that_ignores_the_wish_is_unplugged_after_its_grace(self, lab: Lab) -> None:
        spec = lab.deaf()
        lab.driver.ensure_running(spec, NotingWatch())
        watch = NotingWatch()
        seen = lab.driver.ensure_halted(spec, watch, grace_s=1)
        assert (seen.state, seen.reason) == (Observed.HALTED, "unplugged after 1 s without an answer")
        assert watch.reports, "waiting is told as progress"
        assert lab.driver.observe(spec.uid).state is Observed.HALTED

    def test_a_cancelled_wait_ends_and_leaves_the_guest_running(self, lab: Lab) -> None:
        spec, watch = lab.deaf(), NotingWatch()
        lab.driver.ensure_running(spec, NotingWatch())
        canceller = threading.Thread(target=lambda: watch.waiting.wait(PATIENCE_S) and watch.cancelled.set())
        canceller.start()
        with pytest.raises(Cancelled):
            lab.driver.ensure_halted(spec, watch, grace_s=PATIENCE_S)
        canceller.join()
        assert lab.driver.observe(spec.uid).state is Observed.RUNNING

    def test_a_cancelled_start_leaves_nothing(self, lab: Lab) -> None:
        spec, watch = lab.spec(), NotingWatch()
        watch.cancelled.set()
        with pytest.raises(Cancelled):
            lab.driver.ensure_running(spec, watch)
        assert lab.driver.observe(spec.uid).state is Observed.ABSENT
        assert lab.leftovers(spec) == []

    def test_a_start_that_fails_says_why_and_leaves_nothing(self, lab: Lab) -> None:
        spec = lab.broken()
        with pytest.raises(Permanent) as refusal:
            lab.driver.ensure_running(spec, NotingWatch())
        assert spec.uid in refusal.value.message
        assert refusal.value.advice
        assert lab.driver.observe(spec.uid).state is Observed.ABSENT
        assert lab.leftovers(spec) == []

    def test_a_guest_that_powers_itself_off_is_heard_as_halted(self, lab: Lab) -> None:
        spec = lab.spec()
        with listening(lab.driver) as heard:
            lab.driver.ensure_running(spec, NotingWatch())
            heard.wait_for(spec.uid, Observed.RUNNING)
            lab.wait_until_ready(spec)
            lab.power_off_inside(spec)
            assert heard.wait_for(spec.uid, Observed.HALTED).reason == "powered off"
        assert lab.another_driver().observe(spec.uid).state is Observed.HALTED

    def test_a_guest_whose_process_is_killed_is_heard_as_crashed(self, lab: Lab) -> None:
        spec = lab.spec()
        with listening(lab.driver) as heard:
            lab.driver.ensure_running(spec, NotingWatch())
            heard.wait_for(spec.uid, Observed.RUNNING)
            lab.wait_until_ready(spec)
            lab.kill(spec)
            heard.wait_for(spec.uid, Observed.CRASHED)
        assert lab.another_driver().observe(spec.uid).state is Observed.CRASHED

    def test_a_power_off_by_another_process_is_heard_as_halted(self, lab: Lab) -> None:
        spec = lab.spec()
        with listening(lab.another_driver()) as heard:
            lab.driver.ensure_running(spec, NotingWatch())
            heard.wait_for(spec.uid, Observed.RUNNING)
            lab.driver.ensure_halted(spec, NotingWatch(), grace_s=0)
            heard.wait_for(spec.uid, Observed.HALTED)

    def test_a_crashed_guest_is_cleared_up_and_starts_again(self, lab: Lab) -> None:
        spec = lab.spec()
        with listening(lab.driver) as heard:
            lab.driver.ensure_running(spec, NotingWatch())
            lab.wait_until_ready(spec)
            lab.kill(spec)
            heard.wait_for(spec.uid, Observed.CRASHED)
            lab.driver.release(spec.uid)
            lab.driver.release(spec.uid)
            assert lab.leftovers(spec) == []
            assert lab.driver.observe(spec.uid).state is Observed.CRASHED
            assert lab.driver.ensure_running(spec, NotingWatch()).state is Observed.RUNNING

    def test_a_guest_that_is_removed_leaves_nothing_but_its_disks(self, lab: Lab) -> None:
        spec = lab.spec()
        lab.driver.ensure_running(spec, NotingWatch())
        for _ in range(2):
            assert lab.driver.ensure_absent(spec, NotingWatch()).state is Observed.ABSENT
        assert lab.driver.observe(spec.uid).state is Observed.ABSENT
        assert lab.driver.observe_all() == []
        assert lab.leftovers(spec) == []

    def test_the_console_log_shows_the_first_line_of_init(self, lab: Lab) -> None:
        spec = lab.spec()
        with listening(lab.driver):
            lab.driver.ensure_running(spec, NotingWatch())
            deadline = time.monotonic() + PATIENCE_S
            while not (first := first_line(Path(spec.console_log))):
                assert time.monotonic() < deadline, "the console stays empty"
                time.sleep(0.05)
        assert first == lab.first_line.format(uid=spec.uid)


def first_line(log: Path) -> str:
    """The first whole line that is not empty, "" when there is none yet."""
    if not log.exists():
        return ""
    whole, _, _ = log.read_text(errors="replace").rpartition("\n")
    return next((line.strip() for line in whole.splitlines() if line.strip()), "")
