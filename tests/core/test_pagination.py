"""Lists in pages by key."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from accounts.models import Account
from core.errors import Invalid
from core.pagination import KeysetPagination

pytestmark = pytest.mark.django_db


def page(**parameters: object) -> tuple[list[Account], str | None]:
    pages = KeysetPagination()
    request = Request(APIRequestFactory().get("/", parameters))
    return pages.paginate_queryset(Account.objects.all(), request), pages.next


def walk(limit: int, between=lambda: None) -> list[str]:
    names, cursor = [], {}
    while True:
        rows, following = page(limit=limit, **cursor)
        names += [row.name for row in rows]
        if following is None:
            return names
        cursor = {"after": following}
        between()


def test_pages_run_from_the_newest_to_the_oldest_and_end_with_null():
    Account.objects.bulk_create(Account(name=str(n)) for n in range(5))
    assert walk(2) == ["4", "3", "2", "1", "0"]


def test_a_full_last_page_has_no_next():
    Account.objects.bulk_create(Account(name=str(n)) for n in range(4))
    first, cursor = page(limit=2)
    second, end = page(limit=2, after=cursor)
    assert [row.name for row in first + second] == ["3", "2", "1", "0"]
    assert end is None


class TestWalking(TestCase):
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(ages=st.lists(st.integers(0, 3), max_size=12), limit=st.integers(1, 5), born=st.integers(0, 3))
    def test_every_row_is_met_exactly_once_while_others_are_born(self, ages: list[int], limit: int, born: int):
        """Ages repeat, so that many rows share one moment and the id decides."""
        for number, age in enumerate(ages):
            Account.objects.create(name=f"old {number}", created_at=Now() - timedelta(hours=age + 1))
        met = walk(limit, lambda: Account.objects.bulk_create(Account(name="new") for _ in range(born)))
        assert sorted(name for name in met if name != "new") == sorted(f"old {n}" for n in range(len(ages)))
        assert "new" not in met, "what is born later is newer than the page"


def cursor_of(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize("limit", ["0", "201", "-1", "ten", "", "1.5", "٣", "9" * 5000])
def test_a_limit_out_of_bounds_is_refused(limit):
    with pytest.raises(Invalid, match="from 1 to 200") as refusal:
        page(limit=limit)
    assert refusal.value.field == "limit"


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "!!!",
        "ü",
        "AAAA",
        cursor_of("yesterday 3"),
        cursor_of("3"),
        cursor_of("3 3 3"),
        cursor_of("-1 3"),
        cursor_of("3 -1"),
        cursor_of("3 99999999999999999999"),
        cursor_of("3 " + "9" * 5000),
        cursor_of("999999999999999999 3"),
        cursor_of("9" * 300 + " 3"),
    ],
)
def test_a_bad_cursor_is_refused(cursor):
    with pytest.raises(Invalid) as refusal:
        page(after=cursor)
    assert refusal.value.code == "bad_cursor"


def test_a_page_reads_the_index_from_the_cursor_on(django_assert_num_queries):
    Account.objects.bulk_create(Account(name=str(n)) for n in range(3))
    _, cursor = page(limit=1)
    with django_assert_num_queries(1):
        page(limit=1, after=cursor)
