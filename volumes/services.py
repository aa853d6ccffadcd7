"""What changes images and backup objects because someone asked."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from django.db import transaction

from accounts.models import Account
from core.errors import Conflict, Invalid
from hypervisor.sources import refusal_of, shown
from operations import engine
from operations.models import Operation
from volumes.models import BackupObject, BackupStorage, Image
from volumes.states import ImageState
from volumes.verbs import IMPORT

NOT_IN_A_URL = re.compile(r"[\x00-\x20\x7f]")


def create_backup_object(
    account: Account, *, name: str, format: str, size_bytes: int | None, sha256: str
) -> BackupObject:
    """A backup object that waits for its content; size and digest, where given, are what it must turn out to be."""
    return BackupObject.objects.create(
        account=account, storage=_storage(), name=name, format=format, size_bytes=size_bytes, sha256=sha256
    )


def _storage() -> BackupStorage:
    storage = BackupStorage.objects.select_related("node").order_by("id").first()
    if storage is None:
        raise Conflict("There is no backup storage yet; an operator adds one.", code="no_backup_storage")
    return storage


def register_image(account: Account, *, backup_object: BackupObject, name: str, **facts: Any) -> Image:
    """An image of an available backup object, available at once."""
    if backup_object.state != ImageState.AVAILABLE:
        raise Conflict(
            f"{backup_object.uid} is {backup_object.state}; an image needs an available one.",
            code="wrong_state",
            field="backup_object",
            state=backup_object.state,
        )
    return Image.objects.create(
        account=account, backup_object=backup_object, name=name, state=ImageState.AVAILABLE, **facts
    )


def import_image(
    account: Account,
    *,
    url: str,
    format: str,
    sha256: str,
    name: str,
    requested_by: str,
    is_operator: bool,
    **facts: Any,
) -> tuple[Image, Operation]:
    """An image whose bytes an operation fetches from a URL. Tenants: http and https to public addresses only."""
    _check_url(url, is_operator)
    with transaction.atomic():
        stored = BackupObject.objects.create(account=account, storage=_storage(), name=name, format=format)
        image = Image.objects.create(account=account, backup_object=stored, name=name, **facts)
        operation = engine.begin_at_birth(
            IMPORT,
            image,
            requested_by=requested_by,
            params={"url": url, "sha256": sha256, "public_addresses_only": not is_operator},
        )
    return image, operation


def _check_url(url: str, is_operator: bool) -> None:
    """What can be told from the text alone; the node checks again what names resolve to, and each redirect."""
    schemes = ("http", "https", "file") if is_operator else ("http", "https")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as fault:
        raise _bad_url(f"The URL cannot be read: {fault}.") from fault
    if parts.username is not None or parts.password is not None:
        raise _bad_url("A URL with a user or password in it is not taken.")
    if NOT_IN_A_URL.search(url):
        raise _bad_url("A URL has no spaces and no control characters; write %20 for a space.")
    if parts.scheme not in schemes or (parts.scheme != "file" and not host):
        begins = " or ".join(f"{scheme}://" for scheme in schemes)
        raise _bad_url(f"{shown(url)!r} is no address to import from; it must begin with {begins}, and name a host.")
    if not is_operator and (refusal := _refusal(host)):
        raise _bad_url(f"{host} is {refusal}; images are imported from public addresses only.")


def _refusal(host: str) -> str:
    """Why a host that is written as an address may not be asked; "" if it may, or if it is a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return ""
    return refusal_of(host)


def _bad_url(sentence: str) -> Invalid:
    return Invalid(sentence, code="bad_url", field="url")
