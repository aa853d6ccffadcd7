"""Operations are cancelled in the admin by staff who may change them, after a question."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from operations.models import Operation
from operations.states import OperationState

LIST = "/admin/operations/operation/"


@pytest.fixture
def open_one(instance) -> Operation:
    Operation.objects.update(state=OperationState.RUNNING, ended_at=None)
    operation = Operation.objects.get()
    operation.steps.update(state="running", ended_at=None, worker="somewhere")
    return operation


def test_the_question_does_nothing_and_the_answer_cancels_in_the_name_of_the_staff_user(admin, open_one):
    page = f"{LIST}{open_one.uid}/cancel/"
    assert page in admin.get(f"{LIST}{open_one.uid}/change/").content.decode().replace(str(open_one.pk), open_one.uid)
    assert open_one.subject_uid in admin.get(page).content.decode()
    admin.get(f"{page}?sure=yes")
    open_one.refresh_from_db()
    assert open_one.cancel_reason == ""
    said = admin.post(page, {"sure": "yes"}, follow=True).content.decode()
    open_one.refresh_from_db()
    assert open_one.cancel_reason == "by staff user chief"
    assert "was asked to stop" in said


def test_one_that_has_ended_has_no_button_and_says_how_it_ended(admin, instance):
    [ended] = Operation.objects.all()
    assert ended.ended_at is not None
    assert "/cancel/" not in admin.get(f"{LIST}{ended.pk}/change/").content.decode()
    said = admin.post(f"{LIST}{ended.pk}/cancel/", {"sure": "yes"}, follow=True).content.decode()
    assert f"ended as {ended.state} at" in said


def test_staff_who_may_only_look_cannot_cancel(open_one):
    looker = User.objects.create_user("looker", is_staff=True)
    looker.user_permissions.add(Permission.objects.get(codename="view_operation"))
    client = Client()
    client.force_login(looker)
    assert "/cancel/" not in client.get(f"{LIST}{open_one.pk}/change/").content.decode()
    assert client.post(f"{LIST}{open_one.pk}/cancel/", {"sure": "yes"}).status_code == 403
    open_one.refresh_from_db()
    assert open_one.cancel_reason == ""
