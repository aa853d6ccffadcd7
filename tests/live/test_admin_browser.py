"""The admin in a real browser: every page, on a desk and on a telephone, and a verb from the tick to the story."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest
from django.contrib import admin as django_admin
from django.contrib.auth.models import User
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from instances.models import Instance
from operations.models import OperationSubject
from operations.states import Hold
from tests.admin.rows import make_rows

pytestmark = pytest.mark.live

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTHS = {"desk": 1280, "telephone": 480}
PASSWORD = "a-long-pass-phrase"


class Witness:
    """Hears everything that a page complains of or asks for."""

    def __init__(self, page: Page, origin: str) -> None:
        self.complaints: list[str] = []
        self._origin = origin
        page.on("console", lambda said: self._heard(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self._heard(str(error)))
        page.on("dialog", lambda dialog: (self._heard(f"a dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self._asked(request.url))
        page.on("requestfailed", lambda request: self._heard(f"failed: {request.url} {request.failure}"))
        page.on("response", lambda got: self._heard(f"{got.status} {got.url}") if got.status >= 400 else None)

    def _heard(self, words: str) -> None:
        if "net::ERR_ABORTED" not in words:  # what a page was loading when the test went on to the next
            self.complaints.append(words)

    def _asked(self, url: str) -> None:
        if not url.startswith((self._origin, "data:", "blob:")):
            self.complaints.append(f"asked another host: {url}")


@pytest.fixture
def instance(transactional_db: None) -> Instance:
    """A running instance that nothing holds, among hostile rows of every model."""
    chief = User.objects.create_superuser("chief", password=PASSWORD)
    made = make_rows(1, chief)
    OperationSubject.objects.update(hold=Hold.CLOSED)
    return made


@pytest.fixture
def paths(instance: Instance) -> list[str]:
    """Every list and page; asked from the database before the browser's event loop runs."""
    found = ["/admin/", "/admin/password_change/"]
    for model, page in django_admin.site._registry.items():
        base = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        found.append(base)
        if page.__class__.__name__ in ("MemberAdmin", "UserAdmin", "GroupAdmin") or page.may_add:
            found.append(f"{base}add/")
        row = model.objects.order_by("pk").first()
        if row is not None:
            found.append(f"{base}{row.pk}/change/")
    verbs = ("poweron", "poweroff", "poweroff_by_force", "terminate")
    found += [f"/admin/instances/instance/{instance.pk}/{verb}/" for verb in verbs]
    return [*found, f"/admin/operations/operation/explain/{instance.uid}/"]


@pytest.fixture
def browser(paths: list[str]) -> Iterator[Browser]:
    # Not pytest's own directory: Chromium makes a socket in there, whose path may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="vdc-browser-") as home, sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, env={"HOME": home, "TMPDIR": home}
        )
        try:
            yield started
        finally:
            started.close()


def logged_in(browser: Browser, origin: str, width: int) -> tuple[BrowserContext, Page, Witness]:
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    witness = Witness(page, origin)
    page.goto(f"{origin}/admin/")
    page.fill("[name=username]", "chief")
    page.fill("[name=password]", PASSWORD)
    page.click("[type=submit]")
    expect(page).to_have_url(f"{origin}/admin/")
    return context, page, witness


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_every_page_is_quiet_and_fits_the_screen(live_server, browser, paths, width):
    context, page, witness = logged_in(browser, live_server.url, width)
    too_wide = []
    for path in paths:
        page.goto(live_server.url + path, wait_until="load")
        if page.evaluate("document.documentElement.scrollWidth") > width:
            too_wide.append(path)
    context.close()
    assert witness.complaints == []
    assert too_wide == []


def test_an_instance_is_terminated_from_the_list_and_the_story_is_a_click_away(live_server, browser, instance):
    context, page, witness = logged_in(browser, live_server.url, WIDTHS["desk"])
    page.click("nav a:has-text('Instances'), #nav-sidebar-apps a:has-text('Instances')")
    page.check(f"input.action-select[value='{instance.pk}']")
    page.select_option("select[name=action]", label="Terminate")
    page.click("#changelist-form [name=index], #changelist-actions-wrapper button[type=submit]")
    expect(page.get_by_text("This is for good")).to_be_visible()
    page.get_by_role("button", name="Terminate").click()
    said = page.get_by_text(f"Terminate of {instance.uid} is on its way")
    expect(said).to_be_visible()
    said.get_by_role("link").last.click()
    expect(page.get_by_text("instance.terminate", exact=True)).to_be_visible()
    expect(page.get_by_text("staff user chief", exact=True)).to_be_visible()
    context.close()
    assert witness.complaints == []


def test_a_button_on_the_page_of_an_instance_asks_first(live_server, browser, instance):
    context, page, witness = logged_in(browser, live_server.url, WIDTHS["desk"])
    page.goto(f"{live_server.url}/admin/instances/instance/{instance.uid}/change/")
    page.get_by_role("link", name="Power off", exact=False).first.click()
    page.fill("[name=timeout_s]", "5")
    page.get_by_role("button", name="Power off").click()
    expect(page.get_by_text(f"Power off of {instance.uid} is on its way")).to_be_visible()
    expect(page.get_by_role("link", name="Terminate")).to_be_visible()
    expect(page.get_by_role("link", name="Power on")).to_have_count(0)
    context.close()
    assert witness.complaints == []


def test_a_filter_narrows_the_list(live_server, browser, instance):
    context, page, witness = logged_in(browser, live_server.url, WIDTHS["desk"])
    page.goto(f"{live_server.url}/admin/instances/instance/?state__exact=error")
    expect(page.get_by_text(instance.uid)).to_have_count(0)
    page.goto(f"{live_server.url}/admin/instances/instance/")
    page.click("a:has-text('Filters')")
    page.select_option("#filter-form select[name='state__exact']", "running", force=True)
    page.locator("#filter-form [type=submit]").click()
    expect(page.get_by_role("link", name=instance.uid)).to_be_visible()
    assert "state__exact=running" in page.url
    context.close()
    assert witness.complaints == []
