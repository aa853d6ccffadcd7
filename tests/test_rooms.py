"""Foreign keys go downhill only, and the documents agree with the verb tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.apps import apps

from instances.states import InstanceState
from instances.verbs import INSTANCE

# From the groundwork up; rooms of one step know nothing of each other.
LEVELS = [
    {"core", "auth", "contenttypes", "sessions", "admin"},
    {"accounts"},
    {"operations"},
    {"hypervisor"},
    {"networks", "volumes"},
    {"instances"},
]
GUIDE = Path(__file__).resolve().parent.parent / "docs" / "guide" / "states-and-verbs.md"


def level(app: str) -> int:
    return next(number for number, rooms in enumerate(LEVELS) if app in rooms)


OURS = [model for app in sorted(set().union(*LEVELS[1:])) for model in apps.get_app_config(app).get_models()]


@pytest.mark.parametrize("model", OURS, ids=lambda model: model._meta.label)
def test_foreign_keys_of_a_model_point_to_its_own_room_or_downhill(model):
    own = model._meta.app_label
    for field in model._meta.get_fields():
        if field.is_relation and not field.auto_created:
            target = field.related_model._meta.app_label
            assert target == own or level(target) < level(own), f"{model._meta.label}.{field.name} points to {target}"


def test_the_guide_lists_every_verb_with_the_states_of_its_table():
    rows = dict(re.findall(r"^\| (\w+) \| ([^|]+) \|", GUIDE.read_text(), re.MULTILINE))
    rows.pop("verb", None)
    written = {name: set(re.findall(r"\w+", states)) - {"new"} for name, states in rows.items()}
    table = {verb.name: {str(state) for state in verb.frm} - {InstanceState.SCHEDULING} for verb in INSTANCE}
    assert written == table
