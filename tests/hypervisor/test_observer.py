"""The observer of a node looks before it opens the lanes, survives broken lines and outages, and is alone."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from django.db import connection

from hypervisor import insisting, listeners, local
from hypervisor import observer as module
from hypervisor.contract import Observation, Observed, Transient
from hypervisor.models import Node, NodePulse
from hypervisor.observer import Observer
from hypervisor.opening import this_start, wait_for_open_lanes
from operations.locks import HeldElsewhere, hold_for_life
from operations.models import Event
from tests import datacenter
from tests.committed import _only_rows, committed_db  # noqa: F401 - fixtures

PATIENCE_S = 90


class Driver(datacenter.Hypervisor):
    """A hypervisor in a dictionary whose lines can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: queue.SimpleQueue[tuple[Callable, Callable]] = queue.SimpleQueue()
        self.refuses_lines = False
        self.hung_up = 0

    def listen(self, heard: Callable, lost: Callable) -> Callable[[], None]:
        if self.refuses_lines:
            raise Transient("the hypervisor takes no calls")
        self.lines.put((heard, lost))
        return self._hang_up

    def _hang_up(self) -> None:
        self.hung_up += 1


class Told:
    """What the listeners of the rooms above were told, in order."""

    def __init__(self) -> None:
        self.news: queue.SimpleQueue[tuple] = queue.SimpleQueue()

    def next(self, word: str) -> tuple:
        """The next news of this kind; those of other kinds are passed over."""
        while (news := self.news.get(timeout=PATIENCE_S))[0] != word:
            pass
        return news


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(local, "driver", lambda hypervisor: driver)
    monkeypatch.setattr(insisting, "PAUSE_AWAY_S", 0.05)
    monkeypatch.setattr(module, "LISTEN_AGAIN_S", 0.05)
    monkeypatch.setattr(module.liveness, "HEARTBEAT_S", 0.1)
    return driver


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()
    monkeypatch.setattr(listeners, "on_tend", [lambda node: told.news.put(("tend",))])
    monkeypatch.setattr(listeners, "on_seen", [lambda node, look: told.news.put(("seen", look))])
    monkeypatch.setattr(listeners, "on_seen_all", [lambda node, looks: told.news.put(("all", looks))])
    monkeypatch.setattr(listeners, "on_start", [lambda node: told.news.put(("start",))])
    return told


@pytest.fixture
def observe(committed_db: None) -> Iterator[Callable[..., Callable[[], None]]]:  # noqa: F811
    """`observe(node)` runs an observer in a thread until the test ends, or what it returns is called."""
    running: list[tuple[threading.Thread, threading.Event]] = []

    def start(node) -> Callable[[], None]:
        stop = threading.Event()

        def work() -> None:
            try:
                Observer(node, stop).run()
            finally:
                connection.close()

        thread = threading.Thread(target=work)
        thread.start()
        running.append((thread, stop))
        return lambda: end(thread, stop)

    def end(thread: threading.Thread, stop: threading.Event) -> None:
        stop.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()

    yield start
    for one in running:
        end(*one)


@pytest.fixture
def node(committed_db: None):  # noqa: F811
    return datacenter.node()


def pulse(node) -> NodePulse:
    return NodePulse.objects.get(node=node)


def lanes_are_open(node) -> bool:
    return Node.objects.filter(pk=node.pk, **this_start()).exists()


def lanes_open_for(node) -> bool:
    """What a lane of the node does before it takes its first bell."""
    return wait_for_open_lanes(Node.objects.filter(pk=node.pk))


# --- start ---------------------------------------------------------------------------------------------------------


def test_the_lanes_open_after_networks_a_look_at_everything_and_the_guests_that_are_wanted(
    driver, told, observe, node, monkeypatch
):
    open_at: dict[str, bool] = {}
    for word, rooms in (("tend", "on_tend"), ("all", "on_seen_all"), ("start", "on_start")):
        monkeypatch.setattr(
            listeners,
            rooms,
            [lambda *news, word=word: (open_at.setdefault(word, lanes_are_open(node)), told.news.put((word,)))],
        )
    observe(node)
    assert lanes_open_for(node)
    assert list(open_at.items()) == [("tend", False), ("all", False), ("start", False)]


def test_a_lane_that_waits_for_the_first_look_can_be_ended(node):
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        assert lanes_open_for(node) is False
    finally:
        signal.signal(signal.SIGALRM, before)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def test_the_lanes_stay_closed_while_the_hypervisor_cannot_be_asked(driver, told, observe, node):
    driver.is_mute, driver.guests = True, {"i-a": Observed.RUNNING}
    observe(node)
    told.next("tend")
    beaten(node, 3)
    assert not lanes_are_open(node)
    driver.is_mute = False
    assert [look.uid for look in told.next("all")[1]] == ["i-a"]
    told.next("start")
    assert lanes_open_for(node)


def beaten(node, times: int) -> None:
    """Wait for so many heartbeats."""
    pause, deadline = threading.Event(), PATIENCE_S / 0.05
    for _ in range(times):
        last = pulse(node).heartbeat_at
        while pulse(node).heartbeat_at == last:
            pause.wait(0.05)
            deadline -= 1
            assert deadline > 0, "no heartbeat came"


def test_an_observer_that_comes_back_in_the_same_start_brings_nothing_up_again(driver, told, observe, node):
    end = observe(node)
    told.next("start")
    assert lanes_open_for(node)
    end()
    observe(node)
    told.next("all")
    beaten(node, 2)
    assert told.news.empty()
    assert Event.objects.filter(name="node.start").count() == 1


# --- the loop ------------------------------------------------------------------------------------------------------


def test_what_a_line_tells_is_passed_on(driver, told, observe, node):
    observe(node)
    heard, _ = driver.lines.get(timeout=PATIENCE_S)
    look = Observation("i-a", Observed.CRASHED, "killed")
    heard(look)
    assert told.next("seen")[1] == look


def test_a_line_that_breaks_is_made_anew_and_what_was_missed_meanwhile_is_looked_at(driver, told, observe, node):
    observe(node)
    _, lost = driver.lines.get(timeout=PATIENCE_S)
    told.next("start")
    driver.refuses_lines = True
    lost("cut by the test")
    driver.guests["i-new"] = Observed.RUNNING  # nobody hears of it
    driver.refuses_lines = False
    heard, _ = driver.lines.get(timeout=PATIENCE_S)
    assert [look.uid for look in told.next("all")[1]] == ["i-new"]
    heard(Observation("i-new", Observed.HALTED))
    assert told.next("seen")[1].state is Observed.HALTED


def test_a_hypervisor_that_cannot_be_listened_to_at_first_is_called_again(driver, told, observe, node):
    driver.refuses_lines = True
    observe(node)
    told.next("start")
    driver.refuses_lines = False
    assert driver.lines.get(timeout=PATIENCE_S)


def test_a_fault_of_the_hypervisor_concludes_nothing_and_ends_nothing(driver, told, observe, node, monkeypatch):
    failing = [Transient("not now")]

    def listener(node, look) -> None:
        if failing:
            raise failing.pop()
        told.news.put(("seen", look))

    monkeypatch.setattr(listeners, "on_seen", [listener])
    observe(node)
    heard, _ = driver.lines.get(timeout=PATIENCE_S)
    heard(Observation("i-a", Observed.HALTED))
    heard(Observation("i-b", Observed.HALTED))
    assert told.next("seen")[1].uid == "i-b"


def test_what_was_seen_while_the_database_was_away_is_written_afterwards(driver, told, observe, node, monkeypatch):
    """The server ends the line three times in the middle of the writing."""
    outages = [1, 2, 3]

    def write(node, look) -> None:
        Event.objects.create(subject_kind="node", subject_uid=node.uid, name=f"test.{look.uid}", message="seen")
        told.news.put(("seen", look))

    def write_in_an_outage(node, look) -> None:
        if outages:
            outages.pop()
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        write(node, look)

    monkeypatch.setattr(listeners, "on_seen", [write_in_an_outage])
    observe(node)
    heard, _ = driver.lines.get(timeout=PATIENCE_S)
    heard(Observation("i-during", Observed.CRASHED))
    assert told.next("seen")[1].uid == "i-during"
    assert outages == []
    assert Event.objects.filter(name="test.i-during").count() == 1
    beaten(node, 1)


def test_an_observer_that_ends_hangs_up_and_lets_go_of_its_node(driver, told, observe, node):
    end = observe(node)
    told.next("start")
    assert pulse(node).holder
    end()
    assert (pulse(node).holder, pulse(node).held_until) == ("", None)
    assert driver.hung_up == 1


# --- one observer --------------------------------------------------------------------------------------------------


def test_a_second_observer_on_the_same_machine_ends_and_names_the_first():
    name = "hn-twin0000.observer"
    hold_for_life(name)
    second = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import django; django.setup()\nfrom operations.locks import hold_for_life; hold_for_life({name!r})",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert f"{name} is served already by process" in second.stderr


def test_an_observer_on_another_machine_does_not_touch_a_node_that_is_held(driver, told, node):
    NodePulse.objects.filter(node=node).update(holder="elsewhere:17", held_until="2999-01-01T00:00:00Z")
    with pytest.raises(HeldElsewhere, match="elsewhere:17"):
        Observer(node, threading.Event()).run()
    assert told.news.empty()
    assert pulse(node).holder == "elsewhere:17"


def test_an_observer_takes_over_a_node_whose_holder_has_been_silent(driver, told, observe, node):
    NodePulse.objects.filter(node=node).update(holder="elsewhere:17", held_until="2020-01-01T00:00:00Z")
    observe(node)
    told.next("start")
    assert not pulse(node).holder.startswith("elsewhere")


def test_an_observer_whose_node_was_taken_over_ends(driver, told, node):
    stop = threading.Event()
    observer = Observer(node, stop)
    observer._hold_node()
    NodePulse.objects.filter(node=node).update(holder="elsewhere:17", held_until="2999-01-01T00:00:00Z")
    with pytest.raises(HeldElsewhere, match="taken over"):
        observer._beat()
    assert pulse(node).holder == "elsewhere:17"
