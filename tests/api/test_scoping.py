"""A walk over all routes: what is somebody else's is not there, for anyone, by any method."""

from __future__ import annotations

import pytest
from rest_framework.permissions import SAFE_METHODS
from rest_framework.test import APIClient

from accounts.api.scoped import AccountScopedViewSet
from accounts.api.views import AccountView
from accounts.models import AccessRecord, Role
from hypervisor.api.views import OfNodes
from hypervisor.models import Node
from tests.api.checks import every_row, nothing_changes, problem, told
from tests.api.routes import METHODS, ROUTES, Route
from tests.api.world import sample

pytestmark = pytest.mark.django_db

SCOPED = [route for route in ROUTES if issubclass(route.view, AccountScopedViewSet)]
OF_A_ROW = [route for route in SCOPED if route.names_a_row]
LISTS = [route for route in SCOPED if route.lists]
ACTIONS_ON_A_ROW = [(route, method) for route in OF_A_ROW for method in route.actions]
CHANGES = [(route, method) for route in ROUTES for method in route.actions if method.upper() not in SAFE_METHODS]


def ask(client: APIClient, method: str, path: str):
    return client.generic(method.upper(), path, b"{}", content_type="application/json")


def model_of(route: Route):
    return Node if issubclass(route.view, OfNodes) else route.view.rows.model


def without_request(answer) -> bytes:
    """What was answered, but for the id of the request, which is never the same."""
    return answer.content.replace(answer.headers["X-Request-Id"].encode(), b"")


@pytest.fixture
def ours_and_theirs(ours, theirs):
    """One row of every noun in both accounts."""
    models = {model_of(route) for route in SCOPED}
    return {model: (sample(model, ours), sample(model, theirs)) for model in models}


@pytest.fixture
def operator(caller, ours, staff):
    return caller(ours, Role.OWNER, operator=True, issued_by=staff)


def test_every_route_is_scoped_to_an_account_or_known_not_to_be():
    others = {route.view for route in ROUTES} - {route.view for route in SCOPED}
    assert {view for view in others if not issubclass(view, OfNodes)} == {AccountView}
    assert len(SCOPED) > 15, "the walk below walks"


@pytest.mark.parametrize("route", OF_A_ROW, ids=str)
def test_someone_elses_id_is_as_if_it_had_never_been(caller, ours, theirs, route):
    row = sample(model_of(route), theirs)
    owner = caller(ours, Role.OWNER)
    ghost = row.uid[:-8] + "00000000"
    for method in METHODS:
        with nothing_changes():
            answer, nobody = (ask(owner.client, method, route.path(uid)) for uid in (row.uid, ghost))
        has_it = method in route.actions or (method == "head" and "get" in route.actions)
        assert answer.status_code == nobody.status_code == (404 if has_it else 405), method
        assert without_request(answer).replace(row.uid.encode(), ghost.encode()) == without_request(nobody)
        if method != "head":
            problem(answer)
    assert not AccessRecord.objects.exists()


@pytest.mark.parametrize("route", LISTS, ids=str)
def test_lists_show_what_is_ours_and_nothing_of_theirs(caller, ours, theirs, ours_and_theirs, route):
    own, foreign = ours_and_theirs[model_of(route)]
    own_client, foreign_client = caller(ours, Role.OWNER).client, caller(theirs, Role.OWNER).client
    for client, seen, unseen in ((own_client, own, foreign), (foreign_client, foreign, own)):
        answer = client.get(route.path(), {"limit": 200})
        assert answer.status_code == 200
        assert seen.uid in [item["id"] for item in answer.json()["items"]]
        strangers = [pair[0] if seen is foreign else pair[1] for pair in ours_and_theirs.values()]
        for stranger in (unseen, *strangers):
            assert stranger.uid not in answer.content.decode()


@pytest.mark.parametrize("route", LISTS, ids=str)
def test_a_tenant_cannot_list_another_account_by_naming_it(caller, ours, theirs, ours_and_theirs, route):
    client = caller(ours, Role.OWNER).client
    told(client.get(route.path(), {"account": theirs.uid}), 404, "not_found", field="account", names=(theirs.uid,))
    told(client.get(route.path(), {"account": "a-00000000"}), 404, "not_found", field="account")


def test_operations_of_someone_elses_instance_are_not_listed(caller, ours, ours_and_theirs):
    client = caller(ours, Role.OWNER).client
    for model, (_, foreign) in ours_and_theirs.items():
        uid = getattr(foreign, "subject_uid", foreign.uid)
        answer = client.get("/api/v1/operations", {"subject": uid})
        assert answer.json() == {"items": [], "next": None}, model


@pytest.mark.parametrize(("route", "method"), ACTIONS_ON_A_ROW, ids=str)
def test_an_operator_reaches_every_id_and_leaves_a_record(operator, theirs, route, method):
    row = sample(model_of(route), theirs)
    answer = ask(operator.client, method, route.path(row.uid))
    assert answer.status_code not in (401, 403, 404, 405), answer.content
    record = AccessRecord.objects.get()
    assert (record.method, record.path) == (method.upper(), route.path(row.uid))
    assert (record.account, record.token) == (theirs, operator.token)
    assert operator.token.uid in record.who


@pytest.mark.parametrize("route", LISTS, ids=str)
def test_an_operators_list_stays_at_home_unless_an_account_is_named(operator, theirs, ours_and_theirs, route):
    own, foreign = ours_and_theirs[model_of(route)]
    at_home = operator.client.get(route.path(), {"limit": 200}).json()["items"]
    assert own.uid in [item["id"] for item in at_home]
    assert foreign.uid not in [item["id"] for item in at_home]
    assert not AccessRecord.objects.exists()
    abroad = operator.client.get(route.path(), {"limit": 200, "account": theirs.uid}).json()["items"]
    assert foreign.uid in [item["id"] for item in abroad]
    assert own.uid not in [item["id"] for item in abroad]
    assert AccessRecord.objects.get().account == theirs


def test_an_operator_who_is_no_longer_staff_is_a_tenant_again(operator, theirs, staff, node):
    row = sample(model_of(OF_A_ROW[0]), theirs)
    staff.is_staff = False
    staff.save()
    told(operator.client.get(OF_A_ROW[0].path(row.uid)), 404, "not_found")
    told(operator.client.get(f"/api/v1/nodes/{node.uid}"), 404, "not_found")


@pytest.mark.parametrize("route", [route for route in ROUTES if issubclass(route.view, OfNodes)], ids=str)
def test_what_is_below_nodes_is_not_there_for_anyone_else(caller, ours, node, route):
    owner = caller(ours, Role.OWNER)
    for method in set(route.actions) - {"head"}:
        with nothing_changes():
            answer = ask(owner.client, method, route.path(node.uid))
        told(answer, 404, "not_found")


def test_nodes_are_there_for_operators_only(caller, ours, operator, node):
    for path in ("/api/v1/nodes", f"/api/v1/nodes/{node.uid}"):
        told(caller(ours, Role.OWNER).client.get(path), 404, "not_found")
        assert operator.client.get(path).status_code == 200
    assert operator.client.get("/api/v1/nodes").json()["items"][0]["id"] == node.uid
    for uid in ("hn-00000000", "%00", "%FF", "x" * 300):
        told(operator.client.get(f"/api/v1/nodes/{uid}"), 404, "not_found")


@pytest.mark.parametrize(("route", "method"), CHANGES, ids=str)
def test_a_viewer_changes_nothing(caller, ours, route, method):
    uid = sample(model_of(route), ours).uid if route.names_a_row else ""
    viewer = caller(ours, Role.VIEWER)
    with nothing_changes():
        answer = ask(viewer.client, method, route.path(uid))
    told(answer, 403, "role_too_low", names=("viewer",))


@pytest.mark.parametrize(("route", "method"), CHANGES, ids=str)
def test_only_owners_manage_tokens(caller, ours, route, method):
    uid = sample(model_of(route), ours).uid if route.names_a_row else ""
    before = every_row()["accounts.ApiToken"]
    member = caller(ours, Role.MEMBER)
    answer = ask(member.client, method, route.path(uid))
    if route.template.startswith("tokens"):
        told(answer, 403, "role_too_low", names=("member", "owner"))
        assert len(every_row()["accounts.ApiToken"]) == len(before) + 1, "the member's own, no other"
    else:
        assert answer.status_code != 403, answer.content


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_without_a_token_nothing_answers(ours, route):
    uid = "x-00000000"
    if route.names_a_row and hasattr(route.view, "rows"):
        uid = sample(model_of(route), ours).uid
    client = APIClient(raise_request_exception=False)
    for method in METHODS:
        with nothing_changes():
            answer = ask(client, method, route.path(uid))
        assert answer.status_code == 401, method
        if method != "head":
            told(answer, 401, "token_missing", names=("Authorization: Bearer",))
