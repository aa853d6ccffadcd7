"""The documents themselves: what every object and every answer carries."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import Role
from instances.models import Instance
from operations import register
from operations.models import LaneCanary, Operation, Step
from tests.api import world
from tests.api.routes import ROUTES

pytestmark = pytest.mark.django_db
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")
SCOPED = [route for route in ROUTES if hasattr(route.view, "rows")]
PAGES = ("/api/v1/explain/",)  # about objects, not objects themselves
ALONE = [route for route in SCOPED if route.actions.get("get") == "retrieve" and not str(route).startswith(PAGES)]


@pytest.fixture
def client(caller, ours):
    return caller(ours, Role.OWNER).client


@pytest.mark.parametrize("route", [*ALONE, *(route for route in SCOPED if route.lists)], ids=str)
def test_every_object_says_id_age_and_what_may_be_done(client, ours, route):
    model = route.view.rows.model
    row = world.sample(model, ours)
    body = client.get(route.path(row.uid)).json()
    objects = body["items"] if route.lists else [body]
    shown = next(item for item in objects if item["id"] == row.uid)
    assert MOMENT.fullmatch(shown["created_at"])
    assert isinstance(shown["allowed_verbs"], list)
    if getattr(model, "KIND", None) in register.nouns:
        assert {"state", "error", "operation"} <= shown.keys()
    assert not any("secret" in name or "token" in name for name in shown), "what opens doors is in no list"


def test_an_instance_shows_what_it_is_wanted_and_seen_as(client, ours):
    image = world.image(ours, min_memory_mib=64)
    key = world.ssh_key_pair(ours)
    wish = {"image": image.uid, "hostname": "web", "memory_mib": 128, "ssh_keys": [key.uid]}
    answer = client.post("/api/v1/instances", wish)
    assert answer.status_code == 202
    body = answer.json()
    assert body["state"] == "pending"
    assert body["wanted"] == "running"
    assert body["observed"] == {"state": "unknown", "reason": "", "at": None}
    assert (body["hostname"], body["name"], body["image"]) == ("web", "web", image.uid)
    assert body["addresses"] == [vif["ipv4"] for vif in body["vifs"]] == ["10.77.0.2"]
    assert re.fullmatch(r"52:54:00(:[0-9a-f]{2}){3}", body["vifs"][0]["mac"])
    assert body["volumes"] == [
        {"id": body["volumes"][0]["id"], "boot": True, "size_bytes": world.GIB, "state": "pending"}
    ]
    assert body["ssh_keys"] == [key.uid]
    assert body["account"] == ours.uid
    assert body["error"] is None
    assert body["operation"]["state"] == "queued"
    assert answer.headers["Location"] == f"/api/v1/operations/{body['operation']['id']}"
    alone = client.get(f"/api/v1/instances/{body['id']}").json()
    assert alone == {**body, "operation": body["operation"]["id"]}


def test_the_place_that_a_202_names_is_there_and_tells_the_whole_plan(client, ours):
    answer = client.post("/api/v1/instances", {"image": world.image(ours).uid})
    story = client.get(answer.headers["Location"]).json()
    assert story["id"] == answer.json()["operation"]["id"]
    assert [step["task"] for step in story["steps"]] == [
        "volumes.fetch_image",
        "volumes.build_volume",
        "networks.plug",
        "instances.start_guest",
    ]
    assert [step["state"] for step in story["steps"]] == ["queued", "blocked", "blocked", "blocked"]
    assert {subject["kind"] for subject in story["subjects"]} == {"instance", "volume"}
    assert [event["name"] for event in story["events"]] == ["instance.launch.requested"]
    assert all(MOMENT.fullmatch(event["at"]) for event in story["events"])
    assert "lane bulk" in story["waiting_for"]
    in_list = client.get("/api/v1/operations").json()["items"][0]
    assert in_list["id"] == story["id"]
    assert not in_list.keys() & {"steps", "events"}


def test_an_operation_waits_for_its_next_attempt_until_that_may_begin(client, ours):
    path = client.post("/api/v1/instances", {"image": world.image(ours).uid}).headers["Location"]
    queued = Step.objects.filter(state="queued")
    queued.update(not_before=timezone.now() + timedelta(minutes=1))
    assert client.get(path).json()["waiting_for"].startswith("the next attempt of volumes.fetch_image, at ")
    queued.update(not_before=timezone.now() - timedelta(minutes=1))
    assert client.get(path).json()["waiting_for"].startswith("a free worker of the lane bulk")


def test_an_import_answers_202_with_its_operation(client, ours):
    wish = {"name": "img", "url": "https://example.com/a.gz", "format": "gz", "hypervisor": "kvm"}
    answer = client.post("/api/v1/images", wish)
    assert answer.status_code == 202
    assert answer.json()["operation"]["verb"] == "image.import"
    assert client.get(answer.headers["Location"]).json()["subject"] == {"kind": "image", "id": answer.json()["id"]}


def test_a_failed_operation_shows_its_error_with_step_and_place_and_the_instance_too(client, ours):
    instance = world.instance(ours)
    operation = Operation.objects.create(
        account=ours,
        verb="instance.poweroff",
        subject_kind="instance",
        subject_uid=instance.uid,
        state="failed",
        error={"class": "Permanent", "message": "no", "advice": "", "step": "t", "place": "a.py:1 in b"},
        undone=["the guest was put back"],
        held=["the disk"],
    )
    Step.objects.create(operation=operation, position=1, task="instances.stop_guest", lane="ops", state="failed")
    Instance.objects.filter(pk=instance.pk).update(state="error", error={**operation.error, "operation": operation.uid})
    story = client.get(f"/api/v1/operations/{operation.uid}").json()
    assert story["error"]["place"] == "a.py:1 in b"
    assert (story["undone"], story["held"]) == (["the guest was put back"], ["the disk"])
    assert client.get(f"/api/v1/instances/{instance.uid}").json()["error"]["operation"] == operation.uid


def test_an_operator_sees_a_node_with_what_is_taken_of_it(caller, ours, staff, node):
    operator = caller(ours, Role.VIEWER, operator=True, issued_by=staff).client
    wish = {"image": world.image(ours).uid, "vcpus": 3, "memory_mib": 100}
    assert caller(ours).client.post("/api/v1/instances", wish).status_code == 202
    body = operator.get(f"/api/v1/nodes/{node.uid}").json()
    assert (body["vcpus_used"], body["memory_mib_used"], body["disk_bytes_used"]) == (3, 100, world.GIB)
    assert (body["status"], body["acceleration"]) == ("online", "tcg")
    assert "files_token" not in body


def test_a_node_tells_how_its_lanes_answer(caller, ours, staff, node):
    operator = caller(ours, Role.VIEWER, operator=True, issued_by=staff).client
    assert operator.get(f"/api/v1/nodes/{node.uid}").json()["lanes"] == {}
    now = timezone.now()
    heard = {"heard_at": now, "round_trip": timedelta(milliseconds=4.25)}
    LaneCanary.objects.create(node=node.uid, lane="ops", number=2, waits_since=now, **heard)
    LaneCanary.objects.create(node=node.uid, lane="bulk", number=1, waits_since=now - timedelta(hours=1))
    lanes = operator.get(f"/api/v1/nodes/{node.uid}").json()["lanes"]
    assert (lanes["ops"]["round_trip_ms"], lanes["ops"]["silent_since"]) == (4.2, None), (
        "the last one is just on its way"
    )
    assert lanes["bulk"]["round_trip_ms"] is lanes["bulk"]["answered_at"] is None
    assert lanes["bulk"]["silent_since"].endswith("Z")


def test_secrets_are_shown_once(caller, ours):
    owner = caller(ours, Role.OWNER).client
    made = owner.post("/api/v1/tokens", {"name": "t", "role": "viewer"}).json()
    pair = owner.post("/api/v1/ssh-key-pairs", {"name": "k"}).json()
    assert made["secret"].startswith("vdc_")
    assert "PRIVATE KEY" in pair["private_key"]
    for path in ("/api/v1/tokens", "/api/v1/ssh-key-pairs", f"/api/v1/ssh-key-pairs/{pair['id']}"):
        said = owner.get(path).content.decode()
        assert made["secret"] not in said
        assert "PRIVATE KEY" not in said
