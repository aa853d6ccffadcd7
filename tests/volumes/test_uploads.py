"""The claim of an upload on its backup object: one at a time, kept alive, and given up when nobody continues it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from core.errors import Conflict, Unavailable
from tests import datacenter
from volumes import uploads
from volumes.models import BackupObject, BackupStorage

pytestmark = pytest.mark.django_db

WHOLE = {"size_bytes": 3, "raw_size_bytes": 4, "sha256": "ab" * 32}
LONG_S = 10 * uploads.SILENT_AFTER_S


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> BackupObject:
    monkeypatch.setattr(uploads.files_client, "delete_object", lambda node, key: None)
    storage = BackupStorage.objects.create(name="local", node=datacenter.node())
    return BackupObject.objects.create(account=datacenter.account(), name="new", storage=storage, format="raw")


def fall_silent(stored: BackupObject) -> None:
    BackupObject.objects.filter(pk=stored.pk).update(upload_seen_at=Now() - timedelta(seconds=LONG_S))


def state(stored: BackupObject) -> str:
    stored.refresh_from_db()
    return stored.state


def test_one_upload_at_a_time(stored: BackupObject):
    upload = uploads.begin(stored)
    with pytest.raises(Conflict, match="is creating"):
        uploads.begin(stored)
    uploads.finish(stored, upload, **WHOLE)
    with pytest.raises(Conflict, match="is available"):
        uploads.begin(stored)


def test_an_upload_that_fell_silent_is_given_up_and_another_may_come(stored: BackupObject):
    uploads.begin(stored)
    fall_silent(stored)
    uploads.give_up_silent(LONG_S)
    assert state(stored) == "pending"
    uploads.finish(stored, uploads.begin(stored), **WHOLE)
    assert state(stored) == "available"


def test_an_upload_that_is_kept_alive_is_left_alone(stored: BackupObject):
    upload = uploads.begin(stored)
    fall_silent(stored)
    uploads.keep(stored, upload)
    uploads.give_up_silent(LONG_S)
    assert state(stored) == "creating"


def test_an_outage_of_the_database_counts_for_nothing(stored: BackupObject):
    uploads.begin(stored)
    fall_silent(stored)
    uploads.give_up_silent(uploads.SILENT_AFTER_S / 2)
    assert state(stored) == "creating"


def test_an_upload_that_was_given_up_touches_its_successor_no_more(stored: BackupObject):
    late = uploads.begin(stored)
    fall_silent(stored)
    uploads.give_up_silent(LONG_S)
    successor = uploads.begin(stored)
    for call in (lambda: uploads.keep(stored, late), lambda: uploads.finish(stored, late, **WHOLE)):
        with pytest.raises(Conflict, match="given up"):
            call()
    uploads.abandon(stored, late)
    assert state(stored) == "creating"
    uploads.finish(stored, successor, **WHOLE)


def test_it_waits_for_a_storage_that_does_not_answer(stored: BackupObject, monkeypatch: pytest.MonkeyPatch):
    def away(node: object, key: str) -> None:
        raise Unavailable("the files server is away", code="files_server")

    uploads.begin(stored)
    fall_silent(stored)
    with monkeypatch.context() as patch:
        patch.setattr(uploads.files_client, "delete_object", away)
        uploads.give_up_silent(LONG_S)
    assert state(stored) == "creating"
    uploads.give_up_silent(LONG_S)
    assert state(stored) == "pending"


def test_an_import_that_an_operation_carries_is_not_taken_for_an_upload(stored: BackupObject):
    BackupObject.objects.filter(pk=stored.pk).update(state="creating")
    uploads.give_up_silent(LONG_S)
    assert state(stored) == "creating"
