"""What is somebody else's is not there; operators reach it and leave a trace."""

from __future__ import annotations

import pytest

from accounts import services
from accounts.models import AccessRecord, Role, SshKeyPair

pytestmark = pytest.mark.django_db
KEYS = "/api/v1/ssh-key-pairs"
TOKENS = "/api/v1/tokens"
LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


@pytest.fixture
def their_key(theirs) -> SshKeyPair:
    return services.import_ssh_key_pair(theirs, name="laptop", public_key=LINE)


@pytest.fixture
def operator(caller, ours, staff):
    return caller(ours, Role.OWNER, operator=True, issued_by=staff)


def listed(client, path: str, **parameters: str) -> list[str]:
    answer = client.get(path, parameters)
    assert answer.status_code == 200
    return [item["id"] for item in answer.json()["items"]]


@pytest.mark.parametrize("role", list(Role))
def test_lists_show_the_own_account_only(caller, ours, theirs, their_key, role):
    other = caller(theirs, Role.OWNER)
    own_key = services.import_ssh_key_pair(ours, name="laptop", public_key=LINE)
    own = caller(ours, role)
    assert listed(own.client, KEYS) == [own_key.uid]
    assert listed(own.client, TOKENS) == [own.token.uid]
    assert listed(other.client, KEYS) == [their_key.uid]


def test_someone_elses_id_is_not_there(caller, ours, theirs, their_key):
    owner, other = caller(ours, Role.OWNER), caller(theirs, Role.OWNER)
    for method, path in [
        ("get", f"{KEYS}/{their_key.uid}"),
        ("delete", f"{KEYS}/{their_key.uid}"),
        ("delete", f"{TOKENS}/{other.token.uid}"),
    ]:
        answer = getattr(owner.client, method)(path)
        nobody = getattr(owner.client, method)(path[:-8] + "00000000")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
        assert answer.json().keys() == nobody.json().keys(), "as if it had never been"
    assert SshKeyPair.objects.filter(pk=their_key.pk).exists()
    other.token.refresh_from_db()
    assert other.token.revoked_at is None
    assert not AccessRecord.objects.exists()


@pytest.mark.parametrize("uid", ["%00", "ssh-%00", "%FF%FE", "ssh-" + "a" * 300, "..", "' OR 1=1"])
def test_what_is_no_id_at_all_is_not_there_either(caller, ours, uid):
    assert caller(ours).client.get(f"{KEYS}/{uid}").status_code == 404


def test_naming_another_account_does_not_help_a_tenant(caller, ours, theirs, their_key):
    owner = caller(ours, Role.OWNER)
    assert owner.client.get(KEYS, {"account": theirs.uid}).status_code == 404
    assert listed(owner.client, KEYS, account=ours.uid) == []


def test_a_viewer_reads_and_changes_nothing(caller, ours):
    viewer = caller(ours, Role.VIEWER)
    key = services.import_ssh_key_pair(ours, name="laptop", public_key=LINE)
    assert viewer.client.get(f"{KEYS}/{key.uid}").status_code == 200
    assert viewer.client.post(KEYS, {"name": "x"}).status_code == 403
    assert viewer.client.delete(f"{KEYS}/{key.uid}").status_code == 403
    assert SshKeyPair.objects.filter(pk=key.pk).exists()


def test_an_operator_reaches_ids_of_every_account_and_leaves_a_trace(operator, theirs, their_key):
    answer = operator.client.get(f"{KEYS}/{their_key.uid}")
    assert answer.status_code == 200
    record = AccessRecord.objects.get()
    assert (record.account, record.token, record.method) == (theirs, operator.token, "GET")
    assert record.path == f"{KEYS}/{their_key.uid}"
    assert operator.token.uid in record.who
    assert record.created_at is not None


def test_reading_the_same_again_is_recorded_once_a_minute_and_changes_always(operator, theirs, their_key):
    for _ in range(3):
        operator.client.get(f"{KEYS}/{their_key.uid}")
    assert AccessRecord.objects.count() == 1
    operator.client.delete(f"{KEYS}/{their_key.uid}")
    assert list(AccessRecord.objects.values_list("method", flat=True)) == ["DELETE", "GET"]


def test_an_operators_lists_stay_at_home_unless_an_account_is_named(operator, theirs, their_key):
    assert listed(operator.client, KEYS) == []
    assert not AccessRecord.objects.exists()
    assert listed(operator.client, KEYS, account=theirs.uid) == [their_key.uid]
    assert AccessRecord.objects.get().account == theirs


@pytest.mark.parametrize("account", ["a-00000000", "", "\x00", "nonsense"])
def test_an_account_that_does_not_exist_is_said_to_be_missing(operator, account):
    answer = operator.client.get(KEYS, {"account": account})
    assert (answer.status_code, answer.json()["field"]) == (404, "account")


def test_work_at_home_leaves_no_trace(operator, ours):
    key = services.import_ssh_key_pair(ours, name="laptop", public_key=LINE)
    operator.client.get(f"{KEYS}/{key.uid}")
    operator.client.get(KEYS, {"account": ours.uid})
    assert not AccessRecord.objects.exists()


def test_a_list_costs_the_same_however_long_it_is(caller, ours, django_assert_num_queries):
    used = caller(ours, Role.OWNER)
    used.client.get(TOKENS)  # notes the use
    for _ in range(5):
        services.import_ssh_key_pair(ours, name="laptop", public_key=LINE)
        caller(ours)
    for path in (KEYS, TOKENS):
        with django_assert_num_queries(2):
            used.client.get(path)
