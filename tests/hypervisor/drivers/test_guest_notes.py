"""What is noted of a guest stays true whoever notes what, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypervisor.contract import Cancelled, Observed
from hypervisor.drivers.guest_notes import GuestNotes

UID = "i-note0001"


@pytest.fixture
def notes(tmp_path: Path) -> GuestNotes:
    return GuestNotes(tmp_path / "guests", "lxc")


def test_a_guest_belongs_to_one_driver(notes: GuestNotes) -> None:
    assert notes.adopt(UID)
    assert not notes.adopt(UID)
    assert notes.known() == [UID]
    assert GuestNotes(notes.guests_dir, "kvm").known() == []


def test_the_first_who_notes_an_end_is_believed(notes: GuestNotes) -> None:
    notes.adopt(UID)
    notes.ended(UID, Observed.CRASHED, "init was killed by SIGKILL")
    assert notes.ended(UID, Observed.HALTED, "powered off").state is Observed.CRASHED
    assert notes.end_of(UID).reason == "init was killed by SIGKILL"


def test_our_own_power_off_overrules_what_was_noted(notes: GuestNotes) -> None:
    notes.adopt(UID)
    notes.ended(UID, Observed.CRASHED, "died")
    notes.halted(UID, "was off")
    assert notes.end_of(UID).state is Observed.HALTED


def test_a_wish_that_was_broken_off_leaves_no_mark(notes: GuestNotes) -> None:
    notes.adopt(UID)
    with pytest.raises(Cancelled), notes.asking(UID):
        assert notes.was_asked(UID)
        raise Cancelled("superseded")
    assert not notes.was_asked(UID)


def test_a_new_start_clears_the_last_end(notes: GuestNotes) -> None:
    notes.adopt(UID)
    notes.began(UID)
    notes.mark_asked(UID)
    notes.halted(UID, "powered off when asked")
    notes.starting(UID)
    assert (notes.end_of(UID), notes.was_asked(UID), notes.has_begun(UID)) == (None, False, False)


def test_nothing_is_noted_of_a_guest_that_was_forgotten(notes: GuestNotes) -> None:
    notes.adopt(UID)
    notes.forget(UID)
    notes.forget(UID)
    notes.mark_asked(UID)
    assert notes.ended(UID, Observed.HALTED, "powered off").state is Observed.HALTED
    assert notes.end_of(UID) is None
    assert not notes.directory(UID).exists()
