"""Fixtures with real lanes of the tests' node: worker processes that can be killed, and a sweep that watches them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connection

from operations import sweep, timing

PROJECT = Path(__file__).resolve().parent.parent.parent
TIME_SCALE = 0.1
PATIENCE_S = 60


@pytest.fixture
def lane(committed_db, cluster, tmp_path):
    """`with lane("take-over") as process:` runs a worker of the test's node on the test's rows."""
    database = {**cluster.stack()["database"], "NAME": connection.settings_dict["NAME"]}
    stack = cluster.stack(database=database, time_scale=TIME_SCALE, run_dir=str(tmp_path / "run"))
    stack_file = tmp_path / "stack.json"
    stack_file.write_text(json.dumps(stack))
    log = tmp_path / "worker.log"

    @contextmanager
    def run(*arguments):
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.operations.lane_process", *arguments],
                cwd=PROJECT,
                env={**os.environ, "VDC_STACK_FILE": str(stack_file), "VDC_PROCESS": "worker"},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        except AssertionError as failed:
            raise AssertionError(f"{failed}\n{log.read_text()}") from failed
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE_S)

    return run


def wait_for(happened, what):
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def is_done(operation):
    operation.refresh_from_db()
    return operation.ended_at is not None


@pytest.fixture
def sweeping(in_threads, monkeypatch):
    for name in ("LEASE_S", "SWEEP_TICK_S", "LONGEST_GAP_S", "FIRST_RING_S"):
        monkeypatch.setattr(timing, name, getattr(timing, name) * TIME_SCALE)
    monkeypatch.setattr(sweep, "chores", [])
    stop = threading.Event()
    [sweeper] = in_threads(lambda: sweep.sweep(stop))
    yield
    stop.set()
    sweeper.result(PATIENCE_S)
