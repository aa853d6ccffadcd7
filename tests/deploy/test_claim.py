"""A stack's name belongs to one clone, and to no directory of the system."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.laptop import claim, machine
from deploy.laptop.stack import CLONE, Stack, StackError


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A stack whose directories lie in the test's own."""
    monkeypatch.setattr(Stack, "state_dir", tmp_path / "state")
    monkeypatch.setattr(Stack, "run_dir", tmp_path / "run")
    monkeypatch.setattr(machine, "SHARED_DIR", tmp_path / "shared")
    return Stack("vdct-claim")


def another_clone(directory: Path) -> Path:
    (directory / "deploy" / "laptop").mkdir(parents=True)
    return directory


@pytest.mark.parametrize("name", ["", "Vdc", "1vdc", "vdc_1", "../vdc", "v" * 21, "vdc\n"])
def test_a_name_that_could_leave_its_directory_is_refused(name: str):
    with pytest.raises(StackError, match="cannot name a stack"):
        Stack(name)


def test_what_is_claimed_is_kept(stack: Stack):
    first = claim.claim(stack)
    assert claim.claim(stack) == first
    assert first["port"] != first["files_port"]
    assert first["clone"] == str(CLONE)


def test_only_root_can_read_the_secrets(stack: Stack):
    claim.claim(stack)
    assert stack.file.stat().st_mode & 0o777 == 0o600


def test_a_wish_for_a_port_is_kept(stack: Stack):
    claim.claim(stack, port=18123)
    assert claim.claim(stack)["port"] == 18123


def test_the_name_of_another_clone_is_refused_with_its_path(stack: Stack, tmp_path: Path):
    owner = another_clone(tmp_path / "elsewhere")
    stack.write(claim.claim(stack) | {"clone": str(owner)})
    with pytest.raises(StackError, match=str(owner)):
        claim.claim(stack)


def test_the_name_of_a_clone_that_is_gone_is_taken_over(stack: Stack, tmp_path: Path):
    content = claim.claim(stack)
    stack.write(content | {"clone": str(tmp_path / "gone")})
    assert claim.claim(stack)["secret_key"] == content["secret_key"]


def test_what_a_gone_clone_left_running_is_stopped_first(stack: Stack, tmp_path: Path):
    stack.write(claim.claim(stack) | {"clone": str(tmp_path / "gone")})
    stack.run_dir.mkdir()
    claim.claim(stack)
    assert stack.going_down.exists()


@pytest.mark.parametrize("place", ["state_dir", "run_dir"])
def test_a_directory_of_somebody_else_is_not_taken(stack: Stack, place: str):
    directory = getattr(stack, place)
    directory.mkdir()
    (directory / "precious").touch()
    with pytest.raises(StackError, match=f"{directory} exists and is no stack of ours"):
        claim.claim(stack)


def test_an_interrupted_first_claim_is_repeated(stack: Stack):
    stack.state_dir.mkdir()
    stack.file.with_suffix(".new").write_text('{"name": ')
    assert claim.claim(stack)["name"] == stack.name


def test_a_damaged_stack_file_is_said_in_one_sentence(stack: Stack):
    stack.state_dir.mkdir()
    stack.file.write_text('{"name": ')
    with pytest.raises(StackError, match="is damaged"):
        claim.claim(stack)


def test_the_port_that_another_stack_keeps_is_refused(stack: Stack, monkeypatch: pytest.MonkeyPatch):
    other = {"number": 0, "port": 18200, "files_port": 18201, "ipv4_network": "10.77.0.0/24"}
    monkeypatch.setattr(machine, "other_stacks", lambda name: {"neighbour": other})
    with pytest.raises(StackError, match="'neighbour'"):
        claim.claim(stack, port=18201)
