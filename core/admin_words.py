"""How the admin writes public ids, states and times; templates and pages share it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.utils import display_for_label

from core.units import duration

NOTHING = "–"
_UID_IN_TEXT = re.compile(r"(?<![\w-])([a-z]{1,6}-[a-z0-9]{8})(?![\w-])")


def link(uid: str, text: str = "") -> str:
    """A link to the page of the row with this public id; its prefix tells which. Unknown prefixes stay plain text."""
    prefix = uid.partition("-")[0]
    model = next((model for model in admin.site._registry if getattr(model, "PREFIX", "") == prefix != ""), None)
    if model is None:
        return text or uid
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[quote(uid)])
    look = "text-link" if text else "text-link whitespace-nowrap"
    return format_html('<a class="{}" href="{}">{}</a>', look, url, text or uid)


def linked(text: str) -> SafeString:
    """Escape a sentence and make every public id in it a link."""
    parts = _UID_IN_TEXT.split(str(text))  # every second one is an id
    return format_html_join("", "{}", ((link(part) if place % 2 else part,) for place, part in enumerate(parts)))


def badge(word: str, colours: Mapping[str, str]) -> SafeString:
    """A state as unfold's coloured label."""
    return display_for_label(str(word), NOTHING, dict(colours))


def age(moment: datetime | None) -> str:
    """ "3 m 02 s ago", for cells of tables."""
    return f"{duration((timezone.now() - moment).total_seconds())} ago" if moment else NOTHING


def ago(moment: datetime | None) -> str:
    """ "2026-03-01 13:02:11, 3 m 02 s ago"."""
    if moment is None:
        return NOTHING
    return f"{moment:%Y-%m-%d %H:%M:%S}, {age(moment)}"
