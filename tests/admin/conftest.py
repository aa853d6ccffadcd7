"""A superuser in the admin, and rows to look at."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from instances.models import Instance
from tests.admin.rows import make_rows


@pytest.fixture
def chief(db: None) -> User:
    return User.objects.create_superuser("chief")  # without a password: hashing one takes long


@pytest.fixture
def admin(chief: User) -> Client:
    client = Client()
    client.force_login(chief)
    return client


@pytest.fixture
def instance(chief: User) -> Instance:
    """A running instance among rows of every model."""
    return make_rows(1, chief)
