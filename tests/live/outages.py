"""Ways in which parts of a data center go silent for a while, and come back."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from deploy.laptop.postgres import socket_dir
from deploy.laptop.supervision import Supervisor
from tests.live.data_center import DataCenter


@dataclass(frozen=True)
class Outage:
    """`within(data_center)` is the block in which it lasts. `answer`: the status of the API meanwhile, None: no one."""

    name: str
    within: Callable[[DataCenter], AbstractContextManager[None]]
    answer: int | None = 200

    @property
    def of_database(self) -> bool:
        return self.answer == 503

    def __str__(self) -> str:
        return self.name


def _frozen(program: str) -> Callable[[DataCenter], AbstractContextManager[None]]:
    return lambda data_center: data_center.frozen(program)


def _stopped(program: str) -> Callable[[DataCenter], AbstractContextManager[None]]:
    @contextlib.contextmanager
    def within(data_center: DataCenter) -> Iterator[None]:
        supervisor = Supervisor(data_center.stack)
        supervisor.stop((program,))
        try:
            yield
        finally:
            supervisor.begin(program)

    return within


@contextlib.contextmanager
def _refusing(data_center: DataCenter) -> Iterator[None]:
    """PostgreSQL lives, but its socket has gone, and everyone who was connected is cut off."""
    socket = socket_dir(data_center.stack) / ".s.PGSQL.5432"
    hidden = socket.with_name("hidden")
    socket.rename(hidden)
    try:
        for backend in _client_backends(data_center):
            os.kill(backend, signal.SIGTERM)
        yield
    finally:
        hidden.rename(socket)


def _client_backends(data_center: DataCenter) -> list[int]:
    """Those of the product's role: "postgres: <role> <database> [local] idle"."""
    postmaster = data_center.pid("postgres")
    role = data_center.content["database"]["USER"]
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    titles = {int(child): Path(f"/proc/{child}/cmdline").read_text() for child in children}
    return [child for child, title in titles.items() if title.startswith(f"postgres: {role} ")]


@contextlib.contextmanager
def _both_mute(data_center: DataCenter) -> Iterator[None]:
    with data_center.frozen("redis"), data_center.frozen_postgresql():
        yield


MUTE_DATABASE = Outage("database-mute", DataCenter.frozen_postgresql, 503)
STOPPED_DATABASE = Outage("database-stopped", _stopped("postgres"), 503)
REFUSING_DATABASE = Outage("database-refusing", _refusing, 503)
MUTE_REDIS = Outage("redis-mute", _frozen("redis"))
MUTE_BOTH = Outage("both-mute", _both_mute, 503)
STOPPED_WEB = Outage("web-stopped", _stopped("web"), None)
