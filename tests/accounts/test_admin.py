"""The admin shows every row of this app and no secret."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from accounts import services
from accounts.models import AccessRecord, ApiToken, Member, Role

LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


@pytest.fixture
def admin(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("admin", password="a-long-pass-phrase"))
    return client


@pytest.fixture
def rows(ours, staff) -> dict[str, int]:
    token, _ = services.issue_token(ours, name="ci", role=Role.MEMBER, issued_by=staff)
    return {
        "account": ours.pk,
        "apitoken": token.pk,
        "sshkeypair": services.import_ssh_key_pair(ours, name="laptop", public_key=LINE).pk,
        "member": Member.objects.create(user=staff, account=ours, role=Role.OWNER).pk,
        "accessrecord": AccessRecord.objects.create(who="x", method="GET", path="/", account=ours, token=token).pk,
    }


@pytest.mark.parametrize("model", ["account", "apitoken", "sshkeypair", "member", "accessrecord"])
def test_every_model_has_a_list_a_search_and_a_page(admin, rows, model):
    for path in ("", "?q=nothing", f"{rows[model]}/change/"):
        assert admin.get(f"/admin/accounts/{model}/{path}").status_code == 200, path


def test_the_hash_of_a_token_is_shown_nowhere(admin, rows):
    digest = ApiToken.objects.get().secret_sha256
    for path in ("", f"{rows['apitoken']}/change/"):
        assert digest not in admin.get(f"/admin/accounts/apitoken/{path}").content.decode()


def test_tokens_are_revoked_by_an_action_and_changed_by_nothing(admin, rows):
    answer = admin.post("/admin/accounts/apitoken/", {"action": "revoke", "_selected_action": [rows["apitoken"]]})
    assert answer.status_code == 302
    assert ApiToken.objects.get().revoked_at is not None
    assert admin.post(f"/admin/accounts/apitoken/{rows['apitoken']}/change/", {"name": "x"}).status_code == 403


def test_an_account_with_resources_is_disabled_not_deleted(admin, rows):
    assert admin.post(f"/admin/accounts/account/{rows['account']}/delete/").status_code == 403


def test_the_admin_loads_nothing_from_another_host(admin, rows):
    for path in ("/admin/", "/admin/login/", "/admin/accounts/account/"):
        text = admin.get(path).content.decode()
        assert 'src="http' not in text and 'src="//' not in text
        assert '<link href="http' not in text


def test_people_have_pages_too(admin, staff):
    for path in ("auth/user/", f"auth/user/{staff.pk}/change/", "auth/group/", "auth/user/add/"):
        assert admin.get(f"/admin/{path}").status_code == 200
