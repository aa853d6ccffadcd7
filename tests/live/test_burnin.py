"""A short campaign on a stack of its own: operations and faults for a minute, and nothing may come of the faults."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from deploy.laptop.stack import CLONE

pytestmark = pytest.mark.live

SEED = 7


def test_a_minute_of_faults_loses_nothing_and_leaves_nothing_behind():
    done = subprocess.run(
        [sys.executable, "-m", "deploy.burnin", "--minutes", "1", "--seed", str(SEED), "--name", f"vdcb{os.getpid()}"],
        cwd=CLONE,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    closing_line = done.stdout.strip().splitlines()[-1]
    assert closing_line.startswith(f"burnin seed {SEED}: 1 min")
    assert "0 lost, 0 duplicated, 0 hanging, 0 without owner, 0 untrue, 0 unexplained, settled after" in closing_line
