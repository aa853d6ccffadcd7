"""The notes about a guest, while one process writes them and another forgets the guest."""

from __future__ import annotations

import threading
from pathlib import Path

from hypervisor.contract import Observed
from hypervisor.drivers.guest_notes import GuestNotes

ROUNDS = 300


def test_a_guest_is_forgotten_while_its_end_is_being_noted(tmp_path: Path):
    notes = GuestNotes(tmp_path / "guests", "lxc")
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            notes.ended("i-1", Observed.CRASHED, "killed")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(ROUNDS):
            notes.adopt("i-1")
            notes.mark_asked("i-1")
            notes.began("i-1")
            notes.forget("i-1")
            assert not notes.knows("i-1")
    finally:
        over.set()
        writer.join()
    assert notes.known() == []
    assert list((tmp_path / "guests").iterdir()) == []


def test_what_a_killed_process_had_begun_to_forget_is_no_guest_and_goes_with_the_next(tmp_path: Path):
    notes = GuestNotes(tmp_path, "kvm")
    for uid in ("i-1", "i-2"):
        notes.adopt(uid)
    notes.directory("i-1").rename(tmp_path / ".forgotten-0")
    assert notes.known() == ["i-2"]
    notes.forget("i-2")
    assert list(tmp_path.iterdir()) == []
