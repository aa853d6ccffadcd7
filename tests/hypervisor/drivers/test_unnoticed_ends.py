"""A container whose end libvirtd does not notice: its controller is watched beside libvirtd."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hypervisor.contract import Observed
from hypervisor.drivers.libvirt.exits import ExitWatch
from hypervisor.drivers.libvirt.lxc import LxcDriver
from hypervisor.drivers.settings import DriverSettings

PATIENCE_S = 30


@pytest.fixture
def controller() -> Iterator[int]:
    """The pid of a process that is not our child, as controllers are libvirtd's."""
    started = subprocess.run(["sh", "-c", "sleep 60 >&- 2>&- & echo $!"], capture_output=True, text=True, check=True)
    pid = int(started.stdout)
    yield pid
    end(pid)


def end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{pid}/exe").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def await_tracer(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Domain:
    """What libvirtd believes of a container with that controller."""

    def __init__(self, controller: int) -> None:
        self.controller = controller
        self.active = True

    def isActive(self) -> bool:
        return self.active

    def ID(self) -> int:
        return self.controller

    def destroy(self) -> None:
        self.active = False


class Driver(LxcDriver):
    """Sees one domain."""

    domain: Domain

    def _find(self, uid: str) -> Domain:
        return self.domain


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    driver = Driver(DriverSettings("tests", tmp_path, tmp_path / "none", "tcg", "nobody"))
    driver.notes.adopt("i-1")
    driver.notes.began("i-1")
    return driver


def test_the_end_of_a_controller_is_told_when_libvirtd_has_had_its_time(controller: int):
    gone: queue.SimpleQueue[str] = queue.SimpleQueue()
    watch = ExitWatch(gone.put)
    watch.watch("i-1", controller)
    await_tracer(controller)
    end(controller)
    assert gone.get(timeout=PATIENCE_S) == "i-1"


def test_one_that_had_ended_before_is_told_too(controller: int):
    end(controller)
    gone: queue.SimpleQueue[str] = queue.SimpleQueue()
    ExitWatch(gone.put).watch("i-1", controller)
    assert gone.get(timeout=PATIENCE_S) == "i-1"


def test_who_stops_watching_is_told_nothing(controller: int):
    gone: queue.SimpleQueue[str] = queue.SimpleQueue()
    watch = ExitWatch(gone.put)
    watch.watch("i-1", controller)
    watch.close()
    end(controller)
    with pytest.raises(queue.Empty):
        gone.get(timeout=1.5)


def test_a_container_without_controller_is_noted_as_ended_and_taken_from_libvirtd(driver: Driver, controller: int):
    end(controller)
    driver.domain = Domain(controller)
    assert driver.went_unnoticed("i-1")
    assert not driver.domain.active
    assert driver.notes.end_of("i-1").state is Observed.CRASHED


def test_a_container_with_its_controller_is_left_alone(
    driver: Driver, controller: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hypervisor.drivers.libvirt.lxc.CONTROLLER", "sleep")
    driver.domain = Domain(controller)
    assert not driver.went_unnoticed("i-1")
    assert driver.domain.active
    assert driver.notes.end_of("i-1") is None
