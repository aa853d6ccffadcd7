"""`allowed_verbs` and what the verbs then answer: every verb of the table in every state, at rest and busy."""

from __future__ import annotations

import pytest

from accounts.models import Role
from instances.models import Instance
from instances.states import InstanceState
from instances.verbs import INSTANCE
from operations import engine, register
from operations.models import Operation
from operations.states import OperationState
from tests.api import world
from tests.api.checks import nothing_changes, told

pytestmark = pytest.mark.django_db
OFFERED = [verb for verb in INSTANCE if verb.offered]
EVERY_STATE = list(InstanceState)


@pytest.fixture
def client(caller, ours):
    return caller(ours, Role.MEMBER).client


def shown(client, instance: Instance) -> dict:
    return client.get(f"/api/v1/instances/{instance.uid}").json()


def do(client, instance: Instance, verb: str, **body):
    return client.post(f"/api/v1/instances/{instance.uid}/{verb}", body)


def assert_accepted(answer, instance: Instance, verb: str) -> None:
    """202 with the subject, its new operation in full, and where to watch it."""
    assert answer.status_code == 202, answer.content
    body = answer.json()
    operation = body["operation"]
    assert body["id"] == instance.uid
    assert operation["verb"] == f"instance.{verb}"
    assert operation["subject"] == {"kind": "instance", "id": instance.uid}
    assert answer.headers["Location"] == f"/api/v1/operations/{operation['id']}"


def test_every_noun_with_offered_verbs_is_walked_here():
    """A noun that gets verbs of its own needs a walk like the ones below."""
    with_verbs = {noun.kind for noun in register.nouns.values() if any(verb.offered for verb in noun.verbs.values())}
    assert with_verbs == {"instance", "stray"}  # strays: test_strays_and_trash


@pytest.mark.parametrize("state", EVERY_STATE)
def test_what_is_allowed_at_rest_is_taken_and_nothing_else(client, ours, state):
    for verb in OFFERED:
        instance = world.instance(ours, state=state, wanted="halted")
        allowed = shown(client, instance)["allowed_verbs"]
        if verb.name in allowed:
            assert_accepted(do(client, instance, verb.name), instance, verb.name)
        else:
            with nothing_changes():
                answer = do(client, instance, verb.name)
            body = told(answer, 409, "wrong_state", names=(verb.name, instance.uid, state))
            assert (body["state"], body["allowed_verbs"]) == (state, allowed)
            assert all(name in body["detail"] for name in allowed)


@pytest.mark.parametrize("state", [state for state in EVERY_STATE if state not in Instance.MOVING])
def test_delete_is_terminate(client, ours, state):
    instance = world.instance(ours, state=state)
    may = "terminate" in shown(client, instance)["allowed_verbs"]
    answer = client.delete(f"/api/v1/instances/{instance.uid}")
    if may:
        assert_accepted(answer, instance, "terminate")
    else:
        told(answer, 409, "wrong_state", names=(instance.uid, state))


def test_a_terminated_instance_says_that_nothing_can_be_done(client, ours):
    instance = world.instance(ours, state="terminated")
    told(do(client, instance, "poweron"), 409, "wrong_state", names=("nothing can be done",))


BUSY_WITH = {
    "launch": InstanceState.SCHEDULING,
    "poweroff": InstanceState.RUNNING,
    "poweron": InstanceState.HALTED,
    "terminate": InstanceState.RUNNING,
}
PLANNED = [verb for verb in INSTANCE if not verb.resumes]


def busy(account, open_verb: str) -> tuple[Instance, Operation]:
    verb = register.verb_named(f"instance.{open_verb}")
    instance = world.instance(account, state=BUSY_WITH[open_verb])
    operation = engine.begin(verb, instance, requested_by="somebody")
    # As if a worker had the first step in hand: otherwise what supersedes it begins at once.
    operation.steps.filter(state="queued").update(state="running", worker="somewhere")
    return instance, operation


def test_there_is_a_busy_walk_for_every_verb():
    assert set(BUSY_WITH) == {verb.name for verb in PLANNED}


@pytest.mark.parametrize("open_verb", BUSY_WITH)
@pytest.mark.parametrize("verb", OFFERED, ids=lambda verb: verb.name)
def test_what_is_allowed_while_busy_is_taken_and_nothing_else(client, ours, open_verb, verb):
    instance, operation = busy(ours, open_verb)
    body = shown(client, instance)
    assert body["operation"] == operation.uid
    force = {"force": True} if verb.name == "poweroff" else {}
    if verb.name in body["allowed_verbs"]:
        answer = do(client, instance, verb.name, **force)
        assert_accepted(answer, instance, verb.name)
        assert answer.json()["operation"]["state"] == OperationState.WAITING
        operation.refresh_from_db()
        assert operation.superseded_by == answer.json()["operation"]["id"]
    else:
        with nothing_changes():
            answer = do(client, instance, verb.name, **force)
        refusal = told(answer, 409, "busy", names=(instance.uid, operation.uid, open_verb))
        assert refusal["operation"] == operation.uid
        assert refusal["state"] == shown(client, instance)["state"]
        assert refusal["allowed_verbs"] == body["allowed_verbs"]


@pytest.mark.parametrize("open_verb", BUSY_WITH)
def test_a_poweroff_without_force_waits_for_nothing(client, ours, open_verb):
    instance, operation = busy(ours, open_verb)
    with nothing_changes():
        answer = do(client, instance, "poweroff", timeout_s=5)
    assert told(answer, 409, "busy", names=(operation.uid,))["operation"] == operation.uid


def test_nothing_ends_a_terminate_that_is_under_way(client, ours):
    """Half of it may be done: a guest without its disks can be neither kept nor powered off."""
    instance, _ = busy(ours, "terminate")
    assert shown(client, instance)["allowed_verbs"] == []


def test_while_one_waits_to_supersede_nothing_more_is_taken(client, ours):
    instance, operation = busy(ours, "poweroff")
    waiting = do(client, instance, "poweroff", force=True).json()["operation"]
    assert shown(client, instance)["allowed_verbs"] == []
    for verb in OFFERED:
        with nothing_changes():
            answer = do(client, instance, verb.name, **({"force": True} if verb.name == "poweroff" else {}))
        assert told(answer, 409, "busy", names=(instance.uid,))["operation"] in (operation.uid, waiting["id"])


def test_nouns_without_verbs_offer_none_and_keys_and_tokens_can_be_deleted(caller, ours):
    owner = caller(ours, Role.OWNER).client
    for noun in ("images", "backup-objects", "volumes", "networks"):
        for item in owner.get(f"/api/v1/{noun}").json()["items"]:
            assert item["allowed_verbs"] == [], noun
    for noun, row in (("ssh-key-pairs", world.ssh_key_pair(ours)), ("tokens", world.token(ours))):
        items = {item["id"]: item for item in owner.get(f"/api/v1/{noun}").json()["items"]}
        assert items[row.uid]["allowed_verbs"] == ["delete"]
        assert owner.delete(f"/api/v1/{noun}/{row.uid}").status_code == 204
