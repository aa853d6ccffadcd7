"""Titles at the top of the admin's pages."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils.text import capfirst

from core.uid import is_uid

register = template.Library()


@register.filter
def heading(title: Any) -> str:
    """With a capital letter, but for public ids: people copy them from here."""
    text = str(title)
    return text if is_uid(text.split(" ")[0]) else capfirst(text)
