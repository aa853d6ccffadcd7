"""Public ids."""

import re

import pytest

from accounts.models import Account
from core.uid import is_uid, new_uid


def test_a_new_uid_is_its_prefix_and_eight_characters():
    assert re.fullmatch(r"i-[a-z0-9]{8}", new_uid("i"))
    assert len({new_uid("i") for _ in range(1000)}) == 1000


@pytest.mark.parametrize("text", ["i-k3v90qzd", "wmi-demo1", "wmi-my-image"])
def test_ids_that_operators_choose_are_ids(text):
    assert is_uid(text)


@pytest.mark.parametrize("text", ["", "i", "i-", "-abc", "I-abc", "i-ABC", "i-a b", "i-a\n", "i-" + "a" * 254, None, 3])
def test_what_is_no_id_is_told_apart(text):
    assert not is_uid(text)


def test_the_kind_of_an_id_is_its_prefix():
    assert is_uid("i-abc", "i")
    assert not is_uid("wmi-abc", "i")


@pytest.mark.django_db
def test_rows_made_in_bulk_get_ids_and_the_time_of_the_database():
    first, second = Account.objects.bulk_create([Account(name="one"), Account(name="two")])
    assert is_uid(first.uid, "a") and is_uid(second.uid, "a") and first.uid != second.uid
    assert first.created_at is not None
