"""The verbs of instances in the admin: asked for by staff, done by the services, refused in whole sentences."""

from __future__ import annotations

import pytest
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.models import Permission, User
from django.test import Client

from instances.models import Instance
from operations.models import Operation, OperationSubject
from operations.states import Hold, OperationState
from tests.admin.rows import make_rows

LIST = "/admin/instances/instance/"


@pytest.fixture
def idle(instance: Instance) -> Instance:
    """A running instance that no operation holds."""
    OperationSubject.objects.update(hold=Hold.CLOSED)
    return instance


def choose(client: Client, action: str, *instances: Instance, **fields: object):
    chosen = {"action": action, ACTION_CHECKBOX_NAME: [instance.pk for instance in instances]}
    return client.post(LIST, chosen | {name: str(value) for name, value in fields.items()}, follow=True)


def button(client: Client, instance: Instance, verb: str, **fields: object):
    return client.post(f"{LIST}{instance.pk}/{verb}/", {"sure": "yes"} | fields, follow=True)


def newest() -> Operation:
    return Operation.objects.first()


@pytest.mark.parametrize(
    ("action", "verb", "params"),
    [
        ("poweroff", "instance.poweroff", {"timeout_s": 7}),
        ("poweroff_by_force", "instance.poweroff", {"force": True}),
        ("terminate", "instance.terminate", {}),
    ],
)
def test_a_button_begins_the_verb_in_the_name_of_the_staff_user(admin, idle, action, verb, params):
    answer = button(admin, idle, action, timeout_s=7)
    operation = newest()
    assert (operation.verb, operation.subject_uid, operation.params) == (verb, idle.uid, params)
    assert operation.requested_by == "staff user chief"
    assert f"/admin/operations/operation/{operation.uid}/change/" in answer.content.decode()


def test_a_halted_instance_is_powered_on_from_the_list(admin, idle):
    Instance.objects.update(state="halted")
    choose(admin, "poweron_chosen", idle, sure="yes")
    assert newest().verb == "instance.poweron"


def test_an_instance_in_error_is_retried_by_its_button(admin, idle):
    stopped = newest()
    Instance.objects.filter(pk=idle.pk).update(state="error", error={"message": "no", "operation": stopped.uid})
    assert f"{LIST}{idle.pk}/retry/" in admin.get(f"{LIST}{idle.pk}/change/").content.decode()
    button(admin, idle, "retry")
    assert (newest().verb, newest().resumes) == (stopped.verb, stopped.uid)
    page = admin.get(f"/admin/operations/operation/{newest().uid}/change/").content.decode()
    assert "goes on with" in page.lower() and stopped.uid in page


@pytest.mark.parametrize("action", ["poweron", "poweroff", "poweroff_by_force", "retry", "terminate"])
def test_nothing_begins_before_the_question_is_answered(admin, idle, action):
    before = Operation.objects.count()
    assert admin.get(f"{LIST}{idle.pk}/{action}/").status_code == 200
    assert idle.uid in choose(admin, f"{action}_chosen", idle).content.decode()
    assert admin.get(f"{LIST}{idle.pk}/{action}/?sure=yes").status_code == 200
    assert Operation.objects.count() == before


def test_the_question_names_every_chosen_instance(admin, chief, idle):
    other = make_rows(2, chief)
    asked = choose(admin, "terminate_chosen", idle, other).content.decode()
    assert idle.uid in asked and other.uid in asked


def test_a_verb_on_several_instances_begins_where_it_can_and_says_why_not_elsewhere(admin, chief, idle):
    busy = make_rows(2, chief)
    said = choose(admin, "poweroff_chosen", idle, busy, sure="yes", timeout_s=60).content.decode()
    assert list(Operation.objects.filter(verb="instance.poweroff").values_list("subject_uid", flat=True)) == [idle.uid]
    holder = OperationSubject.objects.get(uid=busy.uid, hold=Hold.OPEN).operation
    assert "is busy with" in said
    assert f"/admin/operations/operation/{holder.uid}/change/" in said


def test_a_busy_instance_shows_the_operation_and_only_the_verbs_that_may_supersede(admin, instance):
    OperationSubject.objects.filter(uid=instance.uid).update(hold=Hold.OPEN)
    Operation.objects.update(state=OperationState.RUNNING, ended_at=None)
    page = admin.get(f"{LIST}{instance.pk}/change/").content.decode()
    assert f"{LIST}{instance.pk}/terminate/" in page
    assert f"{LIST}{instance.pk}/poweroff/" not in page
    assert Operation.objects.get().uid in page


def test_a_verb_in_the_wrong_state_names_the_state_and_what_is_allowed(admin, idle):
    said = button(admin, idle, "poweron").content.decode()
    assert "poweron is not possible while" in said
    assert "is running; allowed now: poweroff, terminate." in said


def test_a_wrong_timeout_is_asked_for_again(admin, idle):
    before = Operation.objects.count()
    asked = button(admin, idle, "poweroff", timeout_s="soon").content.decode()
    assert "Enter a whole number" in asked
    assert Operation.objects.count() == before


def test_staff_who_may_only_look_have_no_verbs(idle):
    looker = User.objects.create_user("looker", is_staff=True)
    looker.user_permissions.add(Permission.objects.get(codename="view_instance"))
    client = Client()
    client.force_login(looker)
    before = Operation.objects.count()
    page = client.get(f"{LIST}{idle.pk}/change/").content.decode()
    assert idle.hostname in page and "/terminate/" not in page
    assert "Last operations" not in page
    assert client.post(f"{LIST}{idle.pk}/terminate/", {"sure": "yes"}).status_code == 403
    choose(client, "terminate_chosen", idle, sure="yes")
    assert Operation.objects.count() == before


def test_a_verb_needs_the_token_of_its_form(chief, idle):
    client = Client(enforce_csrf_checks=True)
    client.force_login(chief)
    before = Operation.objects.count()
    assert client.post(f"{LIST}{idle.pk}/terminate/", {"sure": "yes"}).status_code == 403
    assert Operation.objects.count() == before
