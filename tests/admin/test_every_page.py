"""Every list and page of the admin opens, keeps its states and secrets, escapes, and loads nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from django.apps import apps
from django.contrib import admin as django_admin
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import ApiToken
from tests.admin.rows import FILES_TOKEN, HOSTILE, USER_DATA, make_rows

ROOMS = ("accounts", "operations", "hypervisor", "networks", "volumes", "instances")
MODELS = sorted(django_admin.site._registry, key=lambda model: model._meta.label)
MOST_STATEMENTS = 14
PLACES = ("src", "href", "action", "formaction", "poster", "data", "srcset", "hx-get", "hx-post")


def url_of(model, path: str = "") -> str:
    return f"/admin/{model._meta.app_label}/{model._meta.model_name}/{path}"


def pages_of(model) -> list[str]:
    pages = [url_of(model), url_of(model, "?q=nothing"), url_of(model, "add/")]
    return [*pages, *(url_of(model, f"{pk}/change/") for pk in model.objects.values_list("pk", flat=True)[:3])]


class Places(HTMLParser):
    """Collects what a page loads or leads to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.scripts = 0
        self.feed(html)
        self.found += re.findall(r"url\(([^)]*)\)", html)

    def handle_starttag(self, tag, attrs) -> None:
        self.found += [value or "" for name, value in attrs if name in PLACES]
        self.scripts += tag == "script" and not dict(attrs).get("src")

    def foreign(self) -> list[str]:
        return [place for place in self.found if re.match(r"""["']?\s*([a-z][a-z0-9+.-]*:)?//""", place.strip(), re.I)]


FIGURES = {"Tally", "LaneCanary"}  # /metrics shows them


def test_every_model_of_ours_has_its_pages():
    ours = {model for room in ROOMS for model in apps.get_app_config(room).get_models()}
    ours = {model for model in ours if not model.__module__.startswith("tests.")}  # nouns that tests add
    assert {model for model in ours if model.__name__ not in FIGURES} <= set(MODELS)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label_lower)
def test_every_list_and_page_opens_and_refers_to_no_other_host(admin, instance, model):
    may_add = admin.get(url_of(model, "add/")).status_code
    for path in pages_of(model):
        answer = admin.get(path)
        assert answer.status_code == (may_add if path.endswith("/add/") else 200), path
        html = answer.content.decode()
        assert Places(html).foreign() == [], path


def test_index_login_and_password_pages_refer_to_no_other_host(admin, instance, client):
    for path in ("/admin/", "/admin/password_change/", "/admin/accounts/", "/admin/instances/"):
        assert Places(admin.get(path).content.decode()).foreign() == [], path
    assert Places(client.get("/admin/login/").content.decode()).foreign() == []


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label_lower)
def test_what_tenants_and_guests_wrote_is_escaped(admin, instance, model):
    for path in pages_of(model):
        html = admin.get(path).content.decode()
        assert HOSTILE not in html, path
        assert 'alert("1")' not in html, path


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label_lower)
def test_secrets_appear_nowhere(admin, chief, instance, model):
    chief.password = "pbkdf2_sha256$1$somesalt$c29tZS1oYXNo"
    chief.save()
    admin.force_login(chief)
    secrets = [FILES_TOKEN, USER_DATA, "in-the-address", chief.password, "somesalt", "c29tZS1oYXNo"]
    secrets += ApiToken.objects.values_list("secret_sha256", flat=True)
    for path in pages_of(model):
        html = admin.get(path).content.decode()
        assert [secret for secret in secrets if secret in html] == [], path


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label_lower)
def test_a_list_of_50_rows_takes_as_few_statements_as_one_of_5(admin, chief, model):
    def statements() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin.get(url_of(model)).status_code == 200
        return len(captured)

    for number in range(5):
        make_rows(number, chief)
    few = statements()
    for number in range(5, 50):
        make_rows(number, chief)
    assert statements() <= few <= MOST_STATEMENTS


ADDED_BY_HAND = {"Account", "Member", "ApiToken", "Network", "BackupStorage", "User", "Group"}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label_lower)
def test_only_what_no_engine_writes_is_added_by_hand(admin, instance, model):
    wanted = 200 if model.__name__ in ADDED_BY_HAND else 403
    assert admin.get(url_of(model, "add/")).status_code == wanted


@pytest.mark.parametrize("model", [model for model in MODELS if model._meta.app_label in ROOMS], ids=str)
def test_nothing_of_ours_but_memberships_is_deleted_by_hand(admin, instance, model):
    row = model.objects.first()
    answer = admin.post(url_of(model, f"{row.pk}/delete/"), {"post": "yes"})
    if model.__name__ == "Member":
        assert answer.status_code == 302
    else:
        assert answer.status_code == 403
        assert model.objects.filter(pk=row.pk).exists()


@pytest.mark.parametrize("model", [model for model in MODELS if model._meta.app_label in ROOMS], ids=str)
def test_a_post_with_every_column_changes_only_what_an_operator_may(admin, instance, model):
    page = django_admin.site._registry[model]
    row = model.objects.first()
    before = model.objects.filter(pk=row.pk).values().get()
    wishes = dict.fromkeys(before, "1") | {
        "state": "error", "wanted": "halted", "observed": "crashed", "hold": "closed", "status": "offline", "name": "n",
        "members-TOTAL_FORMS": "0", "members-INITIAL_FORMS": "0", "dns": "9.9.9.9", "role": "viewer",
    }  # fmt: skip
    answer = admin.post(url_of(model, f"{row.pk}/change/"), wishes)
    after = model.objects.filter(pk=row.pk).values().get()
    changed = {name for name in before if before[name] != after[name]}
    if model.__name__ == "Member":
        assert changed <= {"user_id", "account_id", "role"}
    else:
        assert changed <= set(page.may_edit)
        assert answer.status_code == (302 if page.may_edit else 403)


def test_a_page_is_found_by_public_id_too(admin, instance):
    assert admin.get(f"/admin/instances/instance/{instance.uid}/change/").status_code == 200
