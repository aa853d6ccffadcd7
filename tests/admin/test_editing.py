"""The few fields that an operator edits, and the tokens that staff issue."""

from __future__ import annotations

import re

import pytest
from django.contrib import admin as django_admin
from django.contrib.auth.models import Permission, User
from django.test import Client, RequestFactory

from accounts.authentication import digest
from accounts.models import Account, ApiToken
from hypervisor.models import Node
from networks.models import Network
from volumes.models import Image

TOKENS = "/admin/accounts/apitoken/"


def test_an_image_is_renamed_and_made_public(admin, instance):
    image = Image.objects.get()
    admin.post(
        f"/admin/volumes/image/{image.pk}/change/", {"name": "bookworm", "is_public": "on", "min_memory_mib": 64}
    )
    image.refresh_from_db()
    assert (image.name, image.is_public, image.min_memory_mib, image.state) == ("bookworm", True, 64, "available")


def test_a_page_that_was_read_before_the_engine_moved_the_row_does_not_move_it_back(chief, instance):
    page = django_admin.site._registry[Image]
    request = RequestFactory().post("/")
    request.user = chief
    stale = Image.objects.get()
    Image.objects.update(state="error", name="renamed by the engine's hour")
    form = page.get_form(request, stale, change=True)({"name": stale.name, "is_public": "on"}, instance=stale)
    form.is_valid()
    page.save_model(request, stale, form, change=True)
    fresh = Image.objects.get()
    assert (fresh.state, fresh.name, fresh.is_public) == ("error", "renamed by the engine's hour", True)


def test_a_node_is_closed_for_new_instances(admin, instance):
    node = Node.objects.get()
    admin.post(f"/admin/hypervisor/node/{node.pk}/change/", {"name": "mine", "vcpus": "1000"})
    changed = Node.objects.get()
    assert (changed.scheduling_enabled, changed.name, changed.vcpus) == (False, node.name, node.vcpus)


def test_dns_servers_are_written_with_commas(admin, instance):
    path = f"/admin/networks/network/{Network.objects.get().pk}/change/"
    admin.post(path, {"name": "inner", "dns": "9.9.9.9, 149.112.112.112"})
    assert Network.objects.get().dns == ["9.9.9.9", "149.112.112.112"]
    assert 'value="9.9.9.9, 149.112.112.112"' in admin.get(path).content.decode()
    admin.post(path, {"name": "inner", "dns": ""})
    assert Network.objects.get().dns == []


def test_a_dns_server_that_is_no_address_is_refused_by_name(admin, instance):
    network = Network.objects.get()
    said = admin.post(f"/admin/networks/network/{network.pk}/change/", {"name": "inner", "dns": "9.9.9.9 dns.example"})
    assert "dns.example" in said.content.decode()
    assert Network.objects.get().dns == network.dns


def test_a_network_is_added_whole_or_refused_with_the_field(admin, db):
    wish = {"name": "second", "ipv4_network": "10.8.0.0/24", "gateway": "10.8.0.1", "bridge": "v0br1", "dns": ""}
    refused = admin.post("/admin/networks/network/add/", wish | {"gateway": "10.9.0.1"}).content.decode()
    assert "10.9.0.1 is not inside 10.8.0.0/24" in refused
    admin.post("/admin/networks/network/add/", wish)
    assert Network.objects.get().ipv4_network == "10.8.0.0/24"


def test_an_account_is_added_and_disabled(admin, db):
    inline = {"members-TOTAL_FORMS": "0", "members-INITIAL_FORMS": "0"}
    admin.post("/admin/accounts/account/add/", {"name": "acme"} | inline)
    account = Account.objects.get(name="acme")
    admin.post(f"/admin/accounts/account/{account.pk}/change/", {"name": "acme"} | inline)
    account.refresh_from_db()
    assert not account.enabled


# --- tokens ----------------------------------------------------------------------------------------------------


@pytest.fixture
def account(db) -> Account:
    return Account.objects.create(name="acme")


def issue(client: Client, account: Account, **fields: object):
    return client.post(f"{TOKENS}add/", {"account": account.pk, "name": "ci", "role": "member"} | fields)


def test_a_token_is_issued_and_its_secret_shown_once(admin, chief, account):
    answer = issue(admin, account, operator="on", days=30)
    (secret,) = set(re.findall(r"vdc_[\w-]{40,}", answer.content.decode()))
    token = ApiToken.objects.get()
    assert token.secret_sha256 == digest(secret)
    assert (token.issued_by, token.is_operator, token.role) == (chief, True, "member")
    assert 29 < (token.expires_at - token.created_at).total_seconds() / 86_400 <= 30
    assert "no-store" in answer["Cache-Control"]
    for path in ("", f"{token.pk}/change/", f"{token.pk}/history/"):
        assert secret not in admin.get(f"{TOKENS}{path}").content.decode()


def test_a_secret_is_shown_whichever_button_was_pressed(admin, account):
    for pressed in ("_addanother", "_continue", "_popup"):
        assert "vdc_" in issue(admin, account, **{pressed: "1"}).content.decode()


def test_the_issued_token_opens_the_api(admin, account):
    (secret,) = set(re.findall(r"vdc_[\w-]{40,}", issue(admin, account).content.decode()))
    assert Client().get("/api/v1/instances", headers={"authorization": f"Bearer {secret}"}).status_code == 200


def test_staff_without_the_permission_issue_and_revoke_no_token(admin, account):
    issue(admin, account)
    looker = User.objects.create_user("looker", is_staff=True)
    looker.user_permissions.add(Permission.objects.get(codename="view_apitoken"))
    client = Client()
    client.force_login(looker)
    assert issue(client, account).status_code == 403
    client.post(TOKENS, {"action": "revoke", "_selected_action": [ApiToken.objects.get().pk]})
    assert ApiToken.objects.get().revoked_at is None
