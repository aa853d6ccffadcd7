"""The `vdc` command against a scripted API."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from cli.main import main
from tests.cli.scripted_api import TOKEN, ScriptedApi


@dataclass
class Ending:
    code: int
    out: str
    err: str


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedApi]:
    """A running API that the environment points to. Pauses between tries are short."""
    monkeypatch.setattr("cli.client.PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr("cli.client.LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr("cli.wait.LONGEST_PAUSE_S", 0.02)
    monkeypatch.setattr("cli.wait.SHORTEST_PAUSE_S", 0.01)
    monkeypatch.setattr("cli.wait.LONGEST_AWAY_PAUSE_S", 0.02)
    with ScriptedApi() as server:
        monkeypatch.setenv("VDC_URL", server.url)
        monkeypatch.setenv("VDC_TOKEN", TOKEN)
        yield server


@pytest.fixture
def vdc(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ending]:
    """Run one command line in this process."""
    # The command configures no logging; the settings that other tests load do.
    monkeypatch.setattr(logging.getLogger("httpx"), "disabled", True)

    def run(*arguments: str) -> Ending:
        capfd.readouterr()
        code = main(list(arguments))
        return Ending(code, *capfd.readouterr())

    return run


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is UTC, so that printed times can be compared."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
