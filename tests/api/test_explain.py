"""GET explain/{id}: from the symptom to the cause in one document, for whoever may see the row."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import AccessRecord, Role
from hypervisor.models import Node, NodePulse, Stray
from instances import services
from instances.models import Instance
from operations import engine, register
from operations.models import Operation, Step
from tests.api.world import sample
from volumes.models import BackupObject, Image, Volume

pytestmark = pytest.mark.django_db

NOUNS = (Instance, Volume, Image, BackupObject, Operation)
MOST_STATEMENTS = 30
FAULT = {
    "class": "Permanent",
    "message": "The 17 bytes of bo-x have the SHA-256 aaaa, but the record says bbbb",
    "advice": "Import the image again.",
    "step": "volumes.fetch_image",
    "place": "hypervisor/image_store.py:258 in _verify",
}


@pytest.fixture
def explain(caller, ours):
    """The document of an id as a member of our account gets it."""
    client = caller(ours, Role.MEMBER).client
    return lambda row: client.get(f"/api/v1/explain/{row.uid}").json()


@pytest.fixture
def failed_launch(ours) -> Instance:
    """An instance whose launch failed at its first step."""
    instance, operation = services.launch_instance(ours, image=sample(Image, ours), requested_by="somebody")
    step = operation.steps.get(position=1)
    step.log = "2026-03-01T13:02:11.004Z attempt 1 info fetching the image source=http://host/bo-x"
    step.state, step.error, step.ended_at = "failed", FAULT, timezone.now()
    step.started_at = step.claimed_at = step.ended_at - timedelta(seconds=3)
    step.save()
    engine.end(operation, "failed", error=FAULT)
    instance.refresh_from_db()
    return instance


@pytest.mark.parametrize("model", NOUNS, ids=lambda model: model.__name__)
def test_every_row_of_ours_is_explained_in_one_sentence_and_few_statements(explain, ours, model):
    row = sample(model, ours)
    explain(row)  # what is read once per process
    with CaptureQueriesContext(connection) as asked:
        told = explain(row)
    assert told["id"] == row.uid
    assert row.uid in told["verdict"]
    assert told["verdict"].endswith(".")
    assert len(asked) <= MOST_STATEMENTS


@pytest.mark.parametrize("model", NOUNS, ids=lambda model: model.__name__)
def test_someone_elses_row_is_not_explained(caller, ours, theirs, model):
    row = sample(model, theirs)
    ghost = f"{model.PREFIX}-00000000"
    client = caller(ours, Role.OWNER).client
    theirs_, nobodys = (client.get(f"/api/v1/explain/{uid}") for uid in (row.uid, ghost))
    assert theirs_.status_code == nobodys.status_code == 404
    assert theirs_.json()["detail"].replace(row.uid, ghost) == nobodys.json()["detail"]


def test_a_public_image_tells_nothing_of_who_imported_it(caller, ours, theirs):
    image = sample(Image, theirs)
    image.is_public = True
    image.save()
    Operation.objects.create(
        account=theirs, verb="image.import", subject_kind="image", subject_uid=image.uid, requested_by="them"
    )
    told = caller(ours, Role.VIEWER).client.get(f"/api/v1/explain/{image.uid}")
    assert told.status_code == 200
    assert told.json()["operations"] == []
    assert "them" not in told.content.decode()


def test_an_operator_who_explains_a_foreign_row_leaves_a_trace(caller, ours, theirs, staff):
    row = sample(Instance, theirs)
    operator = caller(ours, Role.OWNER, operator=True, issued_by=staff).client
    assert operator.get(f"/api/v1/explain/{row.uid}").status_code == 200
    assert AccessRecord.objects.get().account == theirs


def test_a_failed_launch_is_explained_from_symptom_to_cause(explain, failed_launch):
    told = explain(failed_launch)
    node = failed_launch.node.uid
    assert told["verdict"] == (
        f"{failed_launch.uid} is in error: volumes.fetch_image failed on {node}: "
        "The 17 bytes of bo-x have the SHA-256 aaaa, but the record says bbbb. Next: Import the image again."
    )
    [story] = told["operations"]
    assert story["steps"][0]["log"] == [
        "2026-03-01T13:02:11.004Z attempt 1 info fetching the image source=http://host/bo-x"
    ]
    assert f"1 vCPU and 256 MiB of memory on {failed_launch.node}" in told["held"]
    assert any(sentence.startswith("the address ") for sentence in told["held"])
    says = {one["verb"]: one["says"] for one in told["next"]}
    assert says[None] == "Import the image again."
    assert "trash" in says["terminate"]


def test_its_volume_leads_to_the_same_cause(explain, failed_launch):
    volume = failed_launch.attachments.get().volume
    told = explain(volume)
    assert told["verdict"].startswith(f"{volume.uid} is in error: volumes.fetch_image failed on ")
    assert [story["subject"]["id"] for story in told["operations"]] == [failed_launch.uid]


def test_the_operation_says_where_it_failed(explain, failed_launch):
    operation = Operation.objects.get()
    told = explain(operation)
    assert told["verdict"].startswith(f"{operation.uid} (launch of {failed_launch.uid}) failed: volumes.fetch_image ")
    assert told["held"] == explain(failed_launch)["held"]


def test_a_silent_node_is_the_reason_that_is_given(explain, ours):
    instance, operation = services.launch_instance(ours, image=sample(Image, ours), requested_by="somebody")
    NodePulse.objects.filter(node=instance.node).update(status="offline")
    waits = f"waits for node {instance.node.uid}, silent since"
    assert f"{instance.uid} is pending: {operation.uid} (launch) {waits}" in explain(instance)["verdict"]
    assert waits in explain(operation)["verdict"]


def test_a_running_step_is_the_reason_that_is_given(explain, ours):
    instance, operation = services.launch_instance(ours, image=sample(Image, ours), requested_by="somebody")
    Step.objects.filter(operation=operation, position=1).update(
        state="running", worker="host:1", claimed_at=timezone.now(), progress_done=2**30, progress_total=2**32,
        progress_unit="bytes",
    )  # fmt: skip
    works = f"works on step 1 of 4, volumes.fetch_image on {instance.node.uid}; 1.0 GiB of 4.0 GiB so far."
    assert explain(instance)["verdict"] == f"{instance.uid} is pending: {operation.uid} (launch) {works}"


@pytest.mark.parametrize(
    ("state", "observed", "wanted", "said"),
    [
        ("running", "running", "running", "is running, and its node sees it so."),
        ("running", "crashed", "running", "is believed running, but its node sees it crashed (init was killed)."),
        ("halted", "halted", "running", "is halted, and its node sees it so, although it is wanted running."),
        ("running", "unknown", "running", "is believed running, but nobody can see it now."),
        ("terminated", "absent", "halted", "is terminated."),
    ],
)
def test_belief_and_sight_are_compared(explain, ours, state, observed, wanted, said):
    instance = sample(Instance, ours)
    reason = "init was killed" if observed == "crashed" else ""
    now = timezone.now() - timedelta(seconds=40)
    Instance.objects.filter(pk=instance.pk).update(
        state=state, observed=observed, wanted=wanted, observed_reason=reason, observed_at=now
    )
    told = explain(instance)
    assert told["verdict"] == f"{instance.uid} {said}"
    assert 40 <= told["seen"][0]["age_s"] < 160


def test_nodes_are_explained_to_operators_alone(caller, ours, staff):
    node = sample(Instance, ours).node or Node.objects.first()
    assert caller(ours, Role.OWNER).client.get(f"/api/v1/explain/{node.uid}").status_code == 404
    told = caller(ours, Role.OWNER, operator=True, issued_by=staff).client.get(f"/api/v1/explain/{node.uid}").json()
    assert node.uid in told["verdict"]
    assert "lane ops" in told["asked"]


def test_strays_are_explained_to_operators_alone(caller, ours, staff):
    node = sample(Instance, ours).node
    stray = Stray.objects.create(node=node, kind="guest", name="i-stray001", hypervisor="kvm", observed="running")
    assert caller(ours, Role.OWNER).client.get(f"/api/v1/explain/{stray.uid}").status_code == 404
    operator = caller(ours, Role.OWNER, operator=True, issued_by=staff).client
    assert "i-stray001" in operator.get(f"/api/v1/explain/{stray.uid}").json()["verdict"]


NOUNS = {
    "i-": "instance",
    "i-00000000": "instance",
    "bo-00000000": "backup object",
    "op-0": "operation",
    "hn-0": "node",
}


@pytest.mark.parametrize("uid", NOUNS)
def test_what_is_not_there_is_refused_in_a_sentence(caller, ours, uid):
    answer = caller(ours, Role.OWNER).client.get(f"/api/v1/explain/{uid}")
    assert (answer.status_code, answer.json()["detail"]) == (404, f"There is no {NOUNS[uid]} {uid}.")


@pytest.mark.parametrize("uid", ["zz-00000000", "nonsense", "ssh-00000000", "I-ABC"])
def test_what_cannot_be_explained_is_refused_with_what_can(caller, ours, staff, uid):
    def said(**rights) -> str:
        answer = caller(ours, Role.OWNER, **rights).client.get(f"/api/v1/explain/{uid}")
        assert answer.status_code == 404
        return answer.json()["detail"]

    sentence = f"Nothing of the id {uid} can be explained; what can is "
    assert said().startswith(sentence)
    assert set(said().removeprefix(sentence).rstrip(".").split(", ")) == {"op-…", "i-…", "vol-…", "wmi-…", "bo-…"}
    assert "hn-…" in said(operator=True, issued_by=staff)


def test_an_image_whose_bytes_never_came_holds_nothing(explain, ours):
    image = sample(Image, ours)
    type(image.backup_object).objects.filter(pk=image.backup_object_id).update(state="error", size_bytes=None)
    told = explain(image)
    assert told["held"] == []
    assert told["asked"]["stored as"].endswith("(error), not known")


def test_user_data_and_keys_are_not_told(explain, ours):
    instance = sample(Instance, ours)
    Instance.objects.filter(pk=instance.pk).update(user_data="password=sesame")
    assert "sesame" not in str(explain(instance))


def test_every_verb_that_is_offered_says_what_it_does():
    silent = [verb.full_name for noun in register.nouns.values() for verb in noun.verbs.values() if verb.offered]
    assert [name for name in silent if not register.verb_named(name).says] == []


def test_every_noun_that_moves_can_be_explained():
    assert {noun.model.PREFIX for noun in register.nouns.values()} <= set(register.explainers)
