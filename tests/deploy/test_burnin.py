"""A campaign's schedule comes from its seed alone, and it touches nothing that it has not made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.burnin.disposable import MARKER, require_disposable
from deploy.burnin.schedule import KINDS, Fault, draw_up
from deploy.laptop.stack import CLONE, Stack, StackError

TEN_MINUTES_S = 600.0


def test_a_seed_gives_one_schedule():
    assert draw_up(7, TEN_MINUTES_S) == draw_up(7, TEN_MINUTES_S)
    assert draw_up(7, TEN_MINUTES_S) != draw_up(8, TEN_MINUTES_S)


@pytest.mark.parametrize("seed", range(20))
def test_ten_minutes_ask_for_much_and_break_everything(seed: int):
    schedule = draw_up(seed, TEN_MINUTES_S)
    assert len(schedule.deeds) >= 500  # some are refused, since their instance is busy
    assert len(schedule.faults) >= 100
    assert {(fault.kind, fault.target) for fault in schedule.faults} == set(KINDS)


@pytest.mark.parametrize("seed", range(20))
def test_all_faults_end_with_the_campaign(seed: int):
    schedule = draw_up(seed, 60.0)
    assert all(fault.at_s + fault.lasts_s <= schedule.length_s for fault in schedule.faults)
    assert all(deed.at_s <= schedule.length_s for deed in schedule.deeds)


def test_a_fault_says_what_it_is():
    assert str(Fault(1.0, "freeze", "redis", 2.5, 0.0)) == "freeze redis for 2.5 s"
    assert str(Fault(1.0, "kill", "web", 0.0, 0.0)) == "kill web"


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A stack whose data directory lies in the test's own."""
    monkeypatch.setattr(Stack, "state_dir", tmp_path / "state")
    return Stack("vdct-burnin")


def test_a_name_that_is_free_may_burn(stack: Stack):
    require_disposable(stack)


def test_data_that_is_not_marked_as_disposable_is_left_alone(stack: Stack):
    stack.state_dir.mkdir()
    (stack.state_dir / "stack.json").write_text("{}")
    with pytest.raises(StackError, match="is not marked as disposable"):
        require_disposable(stack)
    assert [path.name for path in stack.state_dir.iterdir()] == ["stack.json"]


def test_data_that_a_campaign_has_made_may_burn(stack: Stack):
    stack.state_dir.mkdir()
    (stack.state_dir / MARKER).touch()
    require_disposable(stack)


def test_the_refusal_reaches_the_person_at_the_terminal():
    """/var/lib/dpkg is there on every machine that this runs on, and belongs to somebody else."""
    done = subprocess.run(
        [sys.executable, "manage.py", "burnin", "--minutes", "1", "--name", "dpkg"],
        cwd=CLONE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "/var/lib/dpkg is not marked as disposable" in done.stderr
    assert "Traceback" not in done.stderr
