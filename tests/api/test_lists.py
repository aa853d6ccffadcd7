"""Lists: what they cost, and pages that stay right while rows come and go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Role
from core.pagination import DEFAULT_LIMIT
from instances import services
from instances.models import Instance
from operations.models import Operation
from tests.api import world
from tests.api.routes import ROUTES

pytestmark = pytest.mark.django_db
LISTS = [route for route in ROUTES if route.lists]
MOST_STATEMENTS = 8


def fill(route, account, count: int) -> None:
    for _ in range(count):
        world.sample(route.view.rows.model, account) if hasattr(route.view, "rows") else world.another_node()


def statements(client, path: str) -> tuple[int, int]:
    """How many SQL statements a list of 200 takes, and how many rows it shows."""
    with CaptureQueriesContext(
        connection,
    ) as captured:
        answer = client.get(path, {"limit": 200})
    assert answer.status_code == 200
    return len(captured), len(answer.json()["items"])


@pytest.mark.parametrize("route", LISTS, ids=str)
def test_a_list_of_fifty_costs_what_a_list_of_five_costs(caller, ours, staff, route):
    client = caller(ours, Role.OWNER, operator=True, issued_by=staff).client
    client.get(route.path())  # notes the use of the token
    fill(route, ours, 5)
    few, shown_few = statements(client, route.path())
    fill(route, ours, 45)
    many, shown_many = statements(client, route.path())
    assert shown_many == shown_few + 45
    assert many == few <= MOST_STATEMENTS


@pytest.mark.parametrize("detail", ["instances", "operations"])
def test_one_row_costs_the_same_however_many_there_are(caller, ours, detail):
    client = caller(ours).client
    subject = world.operation(ours) if detail == "operations" else world.instance(ours)
    path = f"/api/v1/{detail}/{subject.uid}"
    client.get(path)
    with CaptureQueriesContext(connection) as few:
        client.get(path)
    for _ in range(10):
        world.operation(ours)
    with CaptureQueriesContext(connection) as many:
        client.get(path)
    assert len(many) == len(few)


def pages(client, path: str, limit: int, **parameters) -> list[list[str]]:
    """The ids of every page, in order."""
    found, after = [], None
    while True:
        cursor = {"after": after} if after else {}
        body = client.get(path, {"limit": limit, **cursor, **parameters}).json()
        found.append([item["id"] for item in body["items"]])
        after = body["next"]
        if after is None:
            return found


def launched(account, count: int) -> list[Instance]:
    image = world.image(account)
    return [services.launch_instance(account, image=image, requested_by="somebody")[0] for _ in range(count)]


@pytest.mark.parametrize("noun", ["instances", "operations"])
def test_pages_show_every_row_once_newest_first(caller, ours, theirs, noun):
    made = launched(ours, 7)
    launched(theirs, 2)
    rows = made if noun == "instances" else list(Operation.objects.filter(account=ours).order_by("id"))
    client = caller(ours).client
    for limit in (1, 3, 7, 200):
        read = pages(client, f"/api/v1/{noun}", limit)
        assert [uid for page in read for uid in page] == [row.uid for row in reversed(rows)]
        assert all(len(page) == limit for page in read[:-1])


@pytest.mark.parametrize("model", [Instance, Operation])
def test_rows_of_the_same_moment_are_told_apart_by_their_key(caller, ours, model):
    launched(ours, 5)
    model.objects.update(created_at=datetime(2030, 1, 1, tzinfo=UTC))
    read = pages(caller(ours).client, f"/api/v1/{model._meta.app_label}", 2)
    assert [uid for page in read for uid in page] == list(model.objects.order_by("-id").values_list("uid", flat=True))


def test_what_is_made_while_one_reads_shifts_no_page(caller, ours):
    made = launched(ours, 4)
    for age, row in enumerate(reversed(made)):  # all rows of one transaction are of one moment
        Instance.objects.filter(pk=row.pk).update(created_at=datetime.now(UTC) - timedelta(seconds=age + 10))
    client = caller(ours).client
    first = client.get("/api/v1/instances", {"limit": 2}).json()
    newcomer = launched(ours, 1)[0]
    Instance.objects.filter(pk=newcomer.pk).update(created_at=datetime.now(UTC))
    second = client.get("/api/v1/instances", {"limit": 2, "after": first["next"]}).json()
    read = [item["id"] for item in first["items"] + second["items"]]
    assert read == [row.uid for row in reversed(made)]
    assert client.get("/api/v1/instances").json()["items"][0]["id"] == newcomer.uid


def test_filters_hold_on_every_page(caller, ours):
    for state in ("running", "halted") * 3:
        world.instance(ours, state=state)
    client = caller(ours).client
    halted = [uid for page in pages(client, "/api/v1/instances", 2, state="halted") for uid in page]
    assert sorted(halted) == sorted(Instance.objects.filter(state="halted").values_list("uid", flat=True))
    instance = Instance.objects.filter(state="running").first()
    for _ in range(2):
        Operation.objects.create(
            account=ours, verb="instance.poweroff", subject_kind="instance", subject_uid=instance.uid, state="done"
        )
    world.operation(ours)
    found = pages(client, "/api/v1/operations", 1, subject=instance.uid, state="done")
    assert [len(page) for page in found] == [1, 1]


def test_a_page_has_fifty_rows_unless_something_else_is_asked_for(caller, ours):
    for _ in range(DEFAULT_LIMIT + 1):
        world.token(ours)
    body = caller(ours, Role.OWNER).client.get("/api/v1/tokens").json()
    assert len(body["items"]) == DEFAULT_LIMIT
    assert body["next"]
