"""The claim of one upload on its backup object: begun, kept alive while bytes come, ended; or given up by the sweep.

pending ──► creating ──► available
   ▲           │  refused, broken off, or silent for too long
   └───────────┘
"""

from __future__ import annotations

import secrets
from datetime import timedelta

import structlog
from django.db.models import QuerySet
from django.db.models.functions import Now

from core.claim import claim
from core.errors import Conflict, Unavailable
from hypervisor import files_client
from operations import timing
from operations.sweep import Chore, chores
from volumes.models import BackupObject
from volumes.states import ImageState

log = structlog.get_logger()

KEEP_EVERY_S = 5 * timing.SCALE
SILENT_AFTER_S = 120 * timing.SCALE  # as long as the storage may take to write the last bytes, and as much again


def begin(stored: BackupObject) -> str:
    """Take the object for one upload; returns the upload's name. Conflict when it has content or is being filled."""
    upload = secrets.token_hex(8)
    pending = BackupObject.objects.filter(pk=stored.pk, state=ImageState.PENDING)
    if not claim(pending, state=ImageState.CREATING, upload=upload, upload_seen_at=Now()):
        stored.refresh_from_db()
        raise Conflict(
            f"{stored.uid} is {stored.state}; content is taken only while it is pending.",
            code="wrong_state",
            state=stored.state,
            allowed_verbs=[],
        )
    return upload


def keep(stored: BackupObject, upload: str) -> None:
    """Bytes still come. Conflict when the upload was given up meanwhile."""
    if not claim(_mine(stored, upload), upload_seen_at=Now()):
        raise _given_up(stored)


def finish(stored: BackupObject, upload: str, *, size_bytes: int, raw_size_bytes: int, sha256: str) -> None:
    """The content is whole and on disk. Conflict when the upload was given up meanwhile."""
    facts = {"size_bytes": size_bytes, "raw_size_bytes": raw_size_bytes, "sha256": sha256}
    if not claim(_mine(stored, upload), state=ImageState.AVAILABLE, upload="", **facts):
        raise _given_up(stored)


def abandon(stored: BackupObject, upload: str) -> None:
    """The content did not arrive whole: nothing is kept, and another try may come.

    Under another name first, so that an upload which was only slow cannot finish while its file is being removed.
    """
    ending = secrets.token_hex(8)
    if claim(_mine(stored, upload), upload=ending):
        files_client.delete_object(stored.storage.node, stored.uid)
        claim(_mine(stored, ending), state=ImageState.PENDING, upload="")


def withdraw(stored: BackupObject, upload: str) -> None:
    """Nothing was sent, so there is nothing to remove: another try may come at once."""
    claim(_mine(stored, upload), state=ImageState.PENDING, upload="")


def _mine(stored: BackupObject, upload: str) -> QuerySet[BackupObject]:
    return BackupObject.objects.filter(pk=stored.pk, state=ImageState.CREATING, upload=upload)


def _given_up(stored: BackupObject) -> Conflict:
    return Conflict(
        f"The upload into {stored.uid} was given up, since nothing was heard of it for {SILENT_AFTER_S:.0f} s; "
        "send the content again.",
        code="upload_given_up",
    )


def register_chore() -> None:
    """Have the sweep look for uploads that nobody continues."""
    chores.append(Chore("abandoned uploads", KEEP_EVERY_S, give_up_silent))


def give_up_silent(good_for_s: float) -> None:
    """Uploads whose web process is gone: their objects wait for content again, once the database was up long enough."""
    if good_for_s < SILENT_AFTER_S:
        return
    too_old = Now() - timedelta(seconds=SILENT_AFTER_S)
    silent = BackupObject.objects.filter(state=ImageState.CREATING, upload_seen_at__lt=too_old).exclude(upload="")
    for stored in silent.select_related("storage__node"):
        try:
            abandon(stored, stored.upload)
        except Unavailable as away:
            log.warning("an abandoned upload is given up when its storage answers", object=stored.uid, why=away.detail)
