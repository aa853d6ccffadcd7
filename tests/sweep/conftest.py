"""One world for all tests of a run, with its rows really committed and its workers running."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import connection
from django.test import TransactionTestCase

from hypervisor import local
from tests import committed
from tests.cluster import Cluster
from tests.sweep import added_verbs
from tests.sweep.node_processes import use_files_only
from tests.sweep.world import TIME_SCALE, World


@pytest.fixture(scope="module")
def _rows_stay() -> Iterator[None]:
    """The marker `django_db` asks for the database; what it would do after each test is done once, at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda test: None)
        yield


@pytest.fixture(scope="module")
def world(
    cluster: Cluster, _rows_stay: None, django_db_setup: None, django_db_blocker, tmp_path_factory
) -> Iterator[World]:
    """It stands until the last test of the module; the subjects of each test are its own."""
    scratch = tmp_path_factory.mktemp("sweep")
    places = {"state_dir": str(scratch / "state"), "run_dir": str(scratch / "run")}
    before, driver, ensure_network = dict(settings.STACK), local.driver, local.ensure_network
    world = World(scratch)
    with django_db_blocker.unblock(), added_verbs.registered():
        settings.STACK.update(places)
        use_files_only()
        try:
            world.build()
            database = {**cluster.stack()["database"], "NAME": connection.settings_dict["NAME"]}
            world.start(cluster.stack(**places, database=database, time_scale=TIME_SCALE))
            yield world
        finally:
            world.stop()
            settings.STACK.update(before)
            local.driver, local.ensure_network = driver, ensure_network
            committed.delete_rows()
            connection.close()
