"""A database whose rows are really committed, for tests with threads and processes, emptied row by row.

pytest-django's `transactional_db` truncates every table after each test, which takes a second; here only what is
there is deleted.
"""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import TransactionTestCase

TABLES = (
    "operations_lanecanary",
    "operations_tally",
    "operations_event",
    "operations_step",
    "operations_operationsubject",
    "operations_operation",
    "instances_volumeattachment",
    "instances_vif",
    "instances_instance",
    "networks_lease",
    "networks_network",
    "volumes_volume",
    "volumes_image",
    "volumes_backupobject",
    "volumes_backupstorage",
    "hypervisor_stray",
    "hypervisor_nodepulse",
    "hypervisor_noderoom",
    "hypervisor_node",
    "accounts_account",
)


@pytest.fixture
def _only_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TransactionTestCase, "_fixture_teardown", _delete_rows)


@pytest.fixture
def committed_db(_only_rows: None, transactional_db: None) -> None:
    """Use it like `transactional_db`."""


def _delete_rows(test: TransactionTestCase) -> None:
    delete_rows()


def delete_rows() -> None:
    """Empty the tables; for a fixture that keeps its rows longer than one test."""
    with connection.cursor() as cursor:
        cursor.execute("; ".join(f"DELETE FROM {table}" for table in TABLES))  # noqa: S608 - names of ours
