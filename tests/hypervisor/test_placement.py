"""Placement is a pure filter: who fits, who is best, and which filter refused whom."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hypervisor.placement import Candidate, Need, NoRoom, rank

NEED = Need(hypervisor="kvm", arch="x86_64", vcpus=2, memory_mib=512, disk_bytes=10 * 2**30)
FITS = Candidate(
    uid="hn-a",
    is_online=True,
    takes_new=True,
    hypervisors=("kvm", "lxc"),
    arch="x86_64",
    vcpus_free=2,
    memory_mib_free=512,
    disk_bytes_free=10 * 2**30,
)


def test_a_node_with_exactly_enough_fits():
    assert rank([FITS], NEED) == [FITS]


@pytest.mark.parametrize(
    ("lack", "filter_name", "words"),
    [
        ({"is_online": False}, "online", "a node that is online"),
        ({"takes_new": False}, "scheduling", "a node that takes new instances"),
        ({"hypervisors": ("lxc",)}, "hypervisor", "a node that runs kvm"),
        ({"arch": "aarch64"}, "architecture", "a node of architecture x86_64"),
        ({"vcpus_free": 1}, "vcpus", "2 free vCPUs"),
        ({"memory_mib_free": 511}, "memory", "512 MiB of free memory"),
        ({"disk_bytes_free": 10 * 2**30 - 1}, "disk", "10.00 GiB of free disk"),
    ],
)
def test_a_refusal_names_the_filter_how_many_nodes_and_what_is_needed(lack, filter_name, words):
    small = replace(FITS, **lack)
    with pytest.raises(NoRoom) as refused:
        rank([small], NEED)
    assert f"'{filter_name}' refused the only node" in refused.value.detail
    assert words in refused.value.detail
    assert (refused.value.code, refused.value.status) == ("no_room", 409)
    with pytest.raises(NoRoom, match=f"'{filter_name}' refused all 2 nodes"):
        rank([small, replace(small, uid="hn-b")], NEED)
    assert rank([small, replace(FITS, uid="hn-b")], NEED) == [replace(FITS, uid="hn-b")]


def test_the_filter_that_refused_the_last_ones_is_named():
    with pytest.raises(NoRoom, match="'memory' refused the only node"):
        rank([replace(FITS, is_online=False), replace(FITS, uid="hn-b", memory_mib_free=1)], NEED)


def test_without_any_node_the_advice_is_to_add_one():
    with pytest.raises(NoRoom, match="There is no node yet"):
        rank([], NEED)


def test_the_node_with_the_most_free_memory_comes_first_and_ties_go_by_uid():
    roomy = replace(FITS, uid="hn-z", memory_mib_free=4096)
    twin = replace(FITS, uid="hn-b")
    idle = replace(FITS, uid="hn-y", vcpus_free=8)
    assert [node.uid for node in rank([twin, FITS, roomy, idle], NEED)] == ["hn-z", "hn-y", "hn-a", "hn-b"]
