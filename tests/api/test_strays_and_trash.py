"""What lies below a node: strays to be adopted or put into quarantine, and its trash; for operators."""

from __future__ import annotations

import pytest

from accounts.models import AccessRecord, Role
from hypervisor.models import Node, Stray
from tests.api import world
from tests.api.checks import nothing_changes, told

pytestmark = pytest.mark.django_db

FACTS = {
    "uid": "i-stray000",
    "vcpus": 1,
    "memory_mib": 64,
    "disks": [
        {"uid": "vol-stray000", "path": "/x/vol-stray000.raw", "format": "raw", "size_bytes": 4096, "boot": True}
    ],
    "nics": [],
    "base_sha256": "",
}


@pytest.fixture
def operator(caller, ours, staff):
    return caller(ours, Role.OWNER, operator=True, issued_by=staff).client


@pytest.fixture
def stray(node) -> Stray:
    return Stray.objects.create(
        node=node, kind="guest", name="i-stray000", hypervisor="lxc", observed="running", facts=FACTS
    )


def path(node, *words: str) -> str:
    return "/".join([f"/api/v1/nodes/{node.uid}", *words])


def test_strays_are_listed_with_what_they_are_made_of(operator, node, stray):
    body = operator.get(path(node, "strays")).json()
    assert body["next"] is None
    [shown] = body["items"]
    assert (shown["id"], shown["name"], shown["kind"], shown["node"]) == (stray.uid, "i-stray000", "guest", node.uid)
    assert (shown["state"], shown["observed"], shown["operation"], shown["facts"]) == ("seen", "running", None, FACTS)
    assert operator.get(path(node, "strays", "i-stray000")).json() == shown


@pytest.mark.parametrize("name", ["i-stray000", "the id of the stray"])
def test_an_adoption_is_an_operation_of_the_account_and_leaves_a_trace(operator, theirs, node, stray, name):
    image = world.image(theirs)
    named = stray.uid if " " in name else name
    answer = operator.post(path(node, "strays", named, "adopt"), {"account": theirs.uid, "image": image.uid})
    assert answer.status_code == 202, answer.content
    body = answer.json()
    assert (body["state"], body["operation"]["verb"]) == ("adopting", "stray.adopt")
    story = operator.get(answer.headers["Location"]).json()
    assert [step["task"] for step in story["steps"]] == ["instances.adopt_stray"]
    assert AccessRecord.objects.filter(account=theirs, method="POST").exists()


def test_a_quarantine_is_an_operation_whose_disks_are_kept_for_the_operator(operator, ours, node, stray):
    answer = operator.post(path(node, "strays", "i-stray000", "quarantine"))
    assert answer.status_code == 202, answer.content
    story = operator.get(answer.headers["Location"]).json()
    assert [step["task"] for step in story["steps"]] == ["instances.remove_stray", "instances.discard_stray_disk"]
    with nothing_changes():
        again = operator.post(path(node, "strays", "i-stray000", "quarantine"))
    told(again, 409, "busy", names=(stray.uid, story["id"]))


def test_what_is_no_stray_and_who_is_no_account_is_refused_by_name(operator, ours, node, stray):
    with nothing_changes():
        answer = operator.post(path(node, "strays", "i-nobody00", "adopt"), {"account": ours.uid})
    told(answer, 404, "not_found", names=("i-nobody00", node.uid, "never looked"))
    instance = world.instance(ours)
    with nothing_changes():
        answer = operator.post(path(node, "strays", instance.uid, "adopt"), {"account": ours.uid})
    told(answer, 409, "known", names=(instance.uid,))
    with nothing_changes():
        answer = operator.post(path(node, "strays", "i-stray000", "adopt"), {"account": "a-nobody00"})
    told(answer, 404, "not_found", field="account", names=("a-nobody00",))


def test_a_stray_of_an_unknown_image_or_beyond_the_free_room_is_refused_with_what_is_missing(
    operator, ours, node, stray
):
    Stray.objects.update(facts={**FACTS, "memory_mib": 2 * 1024 * 1024})
    with nothing_changes():
        answer = operator.post(path(node, "strays", "i-stray000", "adopt"), {"account": ours.uid})
    told(answer, 409, "image_unknown", field="image")
    image = world.image(ours)
    with nothing_changes():
        answer = operator.post(path(node, "strays", "i-stray000", "adopt"), {"account": ours.uid, "image": image.uid})
    told(answer, 409, "no_room", names=(node.uid, "2048 GiB"))


@pytest.mark.parametrize("method", ["get", "post", "delete"])
def test_the_trash_of_a_node_that_nobody_serves_is_a_503_that_names_it(operator, node, method):
    entry = "vol-nobody00.op-nobody00"
    asked = {
        "get": lambda: operator.get(path(node, "trash")),
        "post": lambda: operator.post(path(node, "trash", entry, "restore")),
        "delete": lambda: operator.delete(path(node, "trash", entry)),
    }[method]
    with nothing_changes():
        answer = asked()
    told(answer, 503, "files_server", names=(node.uid,))


def test_a_node_without_a_files_server_has_no_trash_to_be_asked_for(operator, node):
    Node.objects.filter(pk=node.pk).update(files_url="")
    told(operator.get(path(node, "trash")), 409, "no_files_server", names=(node.uid,))


def test_a_stray_allows_what_is_then_taken_and_nothing_while_it_is_busy(operator, theirs, node, stray):
    bodies = {"adopt": {"account": theirs.uid, "image": world.image(theirs).uid}, "quarantine": {}}
    assert operator.get(path(node, "strays", stray.uid)).json()["allowed_verbs"] == list(bodies)
    for verb, body in bodies.items():
        other = Stray.objects.create(
            node=node, kind="guest", name=f"i-{verb}", hypervisor="lxc", observed="running", facts=FACTS
        )
        assert operator.post(path(node, "strays", other.uid, verb), body).status_code == 202
        assert operator.get(path(node, "strays", other.uid)).json()["allowed_verbs"] == []
