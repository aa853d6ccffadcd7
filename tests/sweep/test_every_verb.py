"""Every verb of every noun, every step of its plan, every fault: afterwards all is settled and nothing is left over.

The verbs come from the register, so a new one is swept without a word here.
"""

from __future__ import annotations

import pytest

from operations import register
from tests.sweep import added_verbs
from tests.sweep.walk import FAULTS, NOTHING, meet, plan_of, walk

pytestmark = pytest.mark.django_db(transaction=True)

VERBS = [verb.full_name for noun in register.nouns.values() for verb in noun.verbs.values()]
VERBS += [verb.full_name for verb in added_verbs.GOOD]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
@pytest.mark.parametrize("verb", VERBS)
def test_nothing_is_lost_or_left_over(world, verb, fault):
    walk(world, register.verb_named(verb), fault)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_works_from_every_state_that_it_names(world, verb):
    verb = register.verb_named(verb)
    if world.gives_birth(verb):
        assert plan_of(world, verb)
        return
    for frm in sorted(verb.frm):
        meet(world, verb, NOTHING, {}, f"{verb.full_name} from {frm}", frm=frm)
