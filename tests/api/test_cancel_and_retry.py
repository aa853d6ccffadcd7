"""The doors of cancel and retry: who may, what they answer, and what they refuse."""

from __future__ import annotations

import pytest

from accounts.models import AccessRecord, Role
from instances.models import Instance
from operations import engine
from operations.models import Operation, Step
from operations.states import OperationState
from tests.api import world
from tests.api.checks import nothing_changes, told

pytestmark = pytest.mark.django_db


@pytest.fixture
def client(caller, ours):
    return caller(ours, Role.MEMBER).client


def cancel(client, operation: Operation, **body):
    return client.post(f"/api/v1/operations/{operation.uid}/cancel", body)


def retry(client, instance: Instance):
    return client.post(f"/api/v1/instances/{instance.uid}/retry", {})


@pytest.fixture
def in_hand(ours) -> Operation:
    """A power-off whose step a worker is at."""
    operation = world.operation(ours)
    operation.steps.update(state="running", worker="somewhere", claimed_at=operation.created_at)
    return operation


@pytest.fixture
def failed(ours) -> Instance:
    """In error by a launch that failed in its third step."""
    instance = world.instance(ours, state="scheduling")
    operation = engine.begin(world.instances.LAUNCH, instance, requested_by="somebody")
    done = Step.objects.filter(operation=operation, position__lt=3)
    done.update(state="done", result={"was": "made"}, started_at=operation.created_at, ended_at=operation.created_at)
    engine.end(engine.locked(operation.pk), OperationState.FAILED, error={"message": "no network"})
    instance.refresh_from_db()
    assert (instance.state, instance.error["operation"]) == ("error", operation.uid)
    return instance


def test_cancel_of_what_is_in_hand_answers_with_the_operation_and_where_to_watch_it(client, in_hand):
    assert client.get(f"/api/v1/operations/{in_hand.uid}").json()["allowed_verbs"] == ["cancel"]
    answer = cancel(client, in_hand)
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/v1/operations/{in_hand.uid}"
    body = answer.json()
    assert (body["id"], body["state"], body["allowed_verbs"]) == (in_hand.uid, "queued", [])
    assert body["cancel_reason"].startswith("by ")


def test_cancel_of_what_is_being_cancelled_is_taken_and_changes_nothing(client, in_hand):
    first = cancel(client, in_hand)
    with nothing_changes():
        again = cancel(client, in_hand)
    assert (again.status_code, again.json()) == (202, first.json())


def test_cancel_of_what_waits_in_a_queue_ends_it(client, ours):
    operation = world.operation(ours)
    assert cancel(client, operation).json()["state"] == "cancelled"
    assert Instance.objects.get(uid=operation.subject_uid).state == "running"


def test_cancel_of_an_ended_operation_says_how_and_when_it_ended(client, ours):
    operation = world.operation(ours)
    cancel(client, operation)
    operation.refresh_from_db()
    with nothing_changes():
        answer = cancel(client, operation)
    when = f"{operation.ended_at:%Y-%m-%d %H:%M:%S} UTC"
    names = (f"{operation.uid} ended as cancelled at {when}; there is nothing to cancel.",)
    assert told(answer, 409, "operation_ended", names=names)["state"] == "cancelled"


def test_cancel_is_for_members_of_the_account_and_for_operators(caller, staff, ours, theirs, in_hand):
    viewer, stranger = caller(ours, Role.VIEWER).client, caller(theirs, Role.OWNER).client
    with nothing_changes():
        assert cancel(viewer, in_hand).status_code == 403
        assert cancel(stranger, in_hand).status_code == 404
    assert cancel(caller(theirs, Role.MEMBER, operator=True, issued_by=staff).client, in_hand).status_code == 202
    assert AccessRecord.objects.filter(account=ours, path__contains="/cancel").count() == 1


def test_an_operation_of_no_account_is_cancelled_by_operators_alone(caller, staff, ours, in_hand):
    Operation.objects.filter(pk=in_hand.pk).update(account=None)
    assert cancel(caller(ours, Role.OWNER).client, in_hand).status_code == 404
    operator = caller(ours, Role.MEMBER, operator=True, issued_by=staff).client
    assert operator.get(f"/api/v1/operations/{in_hand.uid}").status_code == 200
    assert cancel(operator, in_hand).status_code == 202


def test_cancel_takes_no_fields(client, in_hand):
    with nothing_changes():
        told(cancel(client, in_hand, force=True), 400, "invalid", field="force")


def test_retry_goes_on_as_the_operation_that_failed(client, failed):
    before = failed.error["operation"]
    assert client.get(f"/api/v1/instances/{failed.uid}").json()["allowed_verbs"] == ["retry", "terminate"]
    answer = retry(client, failed)
    assert answer.status_code == 202
    operation = answer.json()["operation"]
    assert (operation["verb"], operation["resumes"]) == ("instance.launch", before)
    assert answer.headers["Location"] == f"/api/v1/operations/{operation['id']}"
    steps = client.get(f"/api/v1/operations/{operation['id']}").json()["steps"]
    assert [step["done_in"] for step in steps] == [before, before, None, None]
    assert [step["state"] for step in steps] == ["done", "done", "queued", "blocked"]
    assert answer.json()["state"] == "initializing"


def test_retry_of_a_healthy_instance_names_its_state_and_what_is_possible(client, ours):
    instance = world.instance(ours, state="running")
    with nothing_changes():
        answer = retry(client, instance)
    told(answer, 409, "wrong_state", names=("retry", instance.uid, "is running", "poweroff, terminate"))


def test_retry_of_an_error_that_no_operation_left_says_so(client, ours):
    instance = world.instance(ours, state="error", error={"message": "seen to burn"})
    with nothing_changes():
        answer = retry(client, instance)
    told(answer, 409, "wrong_state", names=("no operation is known that left", instance.uid, "allowed now: terminate"))
