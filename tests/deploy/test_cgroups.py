"""Which cgroup trees a stack uses on the three kinds of machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.laptop import cgroups
from deploy.laptop.mounts import Mount, mounts
from deploy.laptop.stack import StackError

TOP = Path("/sys/fs/cgroup")
V1 = [
    Mount(TOP / "cpu,cpuacct", "cgroup", ("rw", "cpu", "cpuacct")),
    Mount(TOP / "memory", "cgroup", ("rw", "memory")),
    Mount(TOP / "systemd", "cgroup", ("rw", "xattr", "name=systemd")),
]


def given(monkeypatch: pytest.MonkeyPatch, *found: Mount) -> list[cgroups.Hierarchy]:
    monkeypatch.setattr(cgroups, "mounts", lambda: list(found))
    return cgroups.hierarchies()


def test_version_1_trees_are_mounted_with_their_own_options(monkeypatch: pytest.MonkeyPatch):
    assert [tree.mount_options for tree in given(monkeypatch, *V1)] == ["cpu,cpuacct", "memory", "none,name=systemd"]


def test_a_hybrid_machine_leaves_version_2_alone(monkeypatch: pytest.MonkeyPatch):
    trees = given(monkeypatch, *V1, Mount(TOP / "unified", "cgroup2", ("rw",)))
    assert {tree.version for tree in trees} == {1}


def test_a_machine_with_systemd_uses_version_2(monkeypatch: pytest.MonkeyPatch):
    (tree,) = given(monkeypatch, Mount(TOP, "cgroup2", ("rw", "nsdelegate")))
    assert (tree.root, tree.version) == (TOP, 2)


def test_a_named_tree_alone_does_not_make_it_version_1(monkeypatch: pytest.MonkeyPatch):
    (tree,) = given(monkeypatch, V1[2], Mount(TOP, "cgroup2", ("rw",)))
    assert tree.version == 2


def test_a_machine_without_cgroups_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(StackError, match="No cgroup file system"):
        given(monkeypatch)


def test_the_mounts_of_this_machine_can_be_read():
    assert "proc" in {mount.kind for mount in mounts()}
