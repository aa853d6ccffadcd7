"""The sweep can fail: verbs that break a promise, which only this test knows, are found out."""

from __future__ import annotations

import pytest

from operations import register
from tests.sweep.walk import FAULTS, walk
from tests.sweep.world import BIRTHS

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("verb", "fault", "told"),
    [
        ("parcel.pack_once", "done twice", "is failed: .*FileExistsError"),
        ("parcel.pack_once", "killed after its effect", "is failed: .*FileExistsError"),
        ("parcel.pack_each_time", "killed between effect and settling", "belongs to .*, which is gone"),
        ("parcel.pack_for_good", "cancelled after its effect", "belongs to .*, which is gone"),
    ],
)
def test_a_verb_that_breaks_its_promise_is_found_out(world, verb, fault, told):
    with pytest.raises(AssertionError, match=rf"(?s){verb}, .*{fault}.*{told}"):
        walk(world, register.verb_named(verb), FAULTS[fault])


def test_a_noun_that_nobody_can_bring_into_the_world_is_named(world, monkeypatch):
    monkeypatch.delitem(BIRTHS, "parcel")
    with pytest.raises(AssertionError, match="add its birth to BIRTHS"):
        world.ready(register.verb_named("parcel.ship"))
