"""Every page of a row that can be explained leads to the page that does so."""

from __future__ import annotations

import pytest
from django.contrib import admin as django_admin
from django.contrib.auth.models import Permission, User
from django.test import Client

from networks.models import Network
from operations import register
from operations.models import Operation
from tests.admin.rows import HOSTILE, USER_DATA
from tests.admin.test_every_page import Places

EXPLAINED = [
    model
    for model in sorted(django_admin.site._registry, key=lambda model: model._meta.label)
    if getattr(model, "PREFIX", "") in register.explainers or model is Operation
]


def test_all_rows_that_can_be_explained_have_a_page():
    assert {model.PREFIX for model in EXPLAINED} == {*register.explainers, "op"}


@pytest.mark.parametrize("model", EXPLAINED, ids=lambda model: model._meta.label_lower)
def test_the_page_of_a_row_leads_to_its_explanation(admin, instance, model):
    row = model.objects.first()
    page = admin.get(f"/admin/{model._meta.app_label}/{model._meta.model_name}/{row.pk}/change/").content.decode()
    path = f"/admin/operations/operation/explain/{row.uid}/"
    assert path in page
    answer = admin.get(path)
    assert answer.status_code == 200
    html = answer.content.decode()
    assert f"{row.uid} explained" in html
    assert HOSTILE not in html
    assert 'alert("1")' not in html
    assert USER_DATA not in html
    assert Places(html).foreign() == []


def test_the_page_has_the_verdict_the_steps_and_the_lines_of_the_node(admin, instance):
    html = admin.get(f"/admin/operations/operation/explain/{instance.uid}/").content.decode()
    for words in ("is running", "volumes.build_volume", "1 line of the log of", "attempt 1 info", "terminate"):
        assert words in html, words


def test_what_cannot_be_explained_has_no_such_link(admin, instance):
    network = Network.objects.first()
    assert "explain/" not in admin.get(f"/admin/networks/network/{network.pk}/change/").content.decode()
    assert admin.get(f"/admin/operations/operation/explain/{network.uid}/").status_code == 404
    assert admin.get("/admin/operations/operation/explain/i-00000000/").status_code == 404


def test_staff_who_may_not_see_operations_get_no_explanation(instance):
    user = User.objects.create_user("clerk", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_instance"))
    client = Client()
    client.force_login(user)
    assert client.get(f"/admin/operations/operation/explain/{instance.uid}/").status_code == 403
