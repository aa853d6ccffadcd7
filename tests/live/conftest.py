"""One data center for all tests of a process that need one, with a KVM and an LXC guest in it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.laptop import Stack, clean
from deploy.laptop.stack import CLONE
from tests.live.counting_proxy import CountingProxy
from tests.live.data_center import DataCenter, Guest, until

logging.getLogger("httpx").setLevel(logging.WARNING)  # these tests poll

LOGS = ("web", "control", "sweep", "node-observer", "node-ops", "node-bulk")
TAIL_LINES = 20
DULL = re.compile(r'"status": 20\d')
USER_DATA = """\
#!/bin/sh
echo ran >>/root/user-data-ran
"""


def own_data_center(scratch: Path, *, mark: str = "", **settings: Any) -> Iterator[DataCenter]:
    """A whole stack of this run's own; both guest images are registered in it. `mark`: letters, for a second one."""
    _clean_what_killed_runs_left()
    center = DataCenter(f"vdct{os.getpid()}{mark}", scratch, **settings)
    try:
        center.start()
        yield center
    finally:
        center.clean()


def _clean_what_killed_runs_left() -> None:
    for directory in Path("/var/lib").glob("vdct*"):
        number = re.fullmatch(r"vdct(\d+)[a-z]*", directory.name)
        if number is None or Path(f"/proc/{number[1]}").exists():
            continue
        if (content := Stack(directory.name).read()) and content["clone"] == str(CLONE):
            clean(directory.name)


@pytest.fixture(scope="session")
def data_center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataCenter]:
    """The one that most tests share."""
    yield from own_data_center(tmp_path_factory.mktemp("data-center"))


@pytest.fixture(scope="session")
def _pair(data_center: DataCenter) -> dict[str, str]:
    asked = {
        kind: data_center.create(kind, f"{kind}-guest", user_data=USER_DATA, name=f"the {kind} guest")
        for kind in ("kvm", "lxc")
    }
    for document in asked.values():
        data_center.done(document["operation"]["id"])
    return {kind: document["id"] for kind, document in asked.items()}


@pytest.fixture
def guests(data_center: DataCenter, _pair: dict[str, str]) -> dict[str, Guest]:
    """The KVM and the LXC guest of this run, running and answering, whatever the test before did to them."""
    found = {kind: data_center.guest(uid) for kind, uid in _pair.items()}
    for guest in found.values():
        if data_center.instance(guest.id)["state"] == "halted":
            data_center.done(data_center.api.verb(guest.id, "poweron"))
    for guest in found.values():
        until(guest.answers, f"{guest.hostname} to answer HTTP")
    return found


@pytest.fixture(params=["kvm", "lxc"])
def guest(request: pytest.FixtureRequest, guests: dict[str, Guest]) -> Guest:
    """First the one, then the other."""
    return guests[request.param]


@pytest.fixture
def fresh_image(data_center: DataCenter) -> str:
    """An LXC image that no store has yet."""
    mark = int.from_bytes(os.urandom(4), "little")
    return data_center.upload_guest_image("lxc", data_center.other_guest_image("lxc", mark))["id"]


@pytest.fixture
def proxy(data_center: DataCenter, fresh_image: str) -> Iterator[CountingProxy]:
    """Stands before the node's files server, once the image to be fetched through it is uploaded."""
    real = data_center.node_row()["files_url"]
    with CountingProxy(real) as proxy, data_center.storage_behind(proxy.url):
        yield proxy


@pytest.fixture
def short_lived(data_center: DataCenter) -> Iterator[list[str]]:
    """Ids of instances that are terminated after the test, however it ends."""
    ids: list[str] = []
    yield ids
    for uid in ids:
        data_center.terminate(uid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """The data center is gone after the run, so a failure takes the end of its logs along."""
    report = yield
    center = getattr(item, "funcargs", {}).get("data_center")
    if report.failed and center is not None:
        for program in LOGS:
            log = center.stack.log(program)
            if log.exists():
                lines = [line for line in log.read_text(errors="replace").splitlines() if not DULL.search(line)]
                report.sections.append((f"end of the log of {program}", "\n".join(lines[-TAIL_LINES:])))
    return report
