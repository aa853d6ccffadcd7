"""The settings come from the stack file; what is missing is said in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client

PROJECT = Path(__file__).resolve().parent.parent.parent


def manage(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VDC_")}
    return subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=PROJECT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_stack_that_is_not_there_is_said_in_one_line():
    done = manage("check", VDC_NAME="nowhere")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("There is no stack named 'nowhere'")
    assert "make up" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_stack_file_is_said_in_one_line(tmp_path: Path):
    file = tmp_path / "stack.json"
    file.write_text('{"name": ')
    done = manage("check", VDC_STACK_FILE=str(file))
    assert done.returncode == 1
    assert "is damaged" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_kind_of_process_is_said_in_one_line():
    done = manage("check", VDC_STACK_FILE=os.environ["VDC_STACK_FILE"], VDC_PROCESS="robot")
    assert done.returncode == 1
    assert done.stderr.strip() == "VDC_PROCESS is 'robot'; it takes web, worker or tool."


def test_the_deployment_check_is_clean():
    done = manage("check", "--deploy", "--fail-level", "WARNING", VDC_STACK_FILE=os.environ["VDC_STACK_FILE"])
    assert done.returncode == 0, done.stderr


def test_nothing_is_debugged_in_public():
    assert settings.DEBUG is False


@pytest.mark.parametrize("path", ["admin/css/base.css", "unfold/css/styles.css"])
def test_static_files_are_served_by_the_web_door_itself(path):
    answer = Client().get(f"/static/{path}")
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/css")
