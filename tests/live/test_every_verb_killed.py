"""Every verb of an instance, on KVM and on LXC: the lane's worker is killed at an exact place in each of its steps.

The KVM and the LXC instance are asked for the same verb at the same time, and the worker that has both their steps in
hand dies once for both.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.burnin.campaign import audit
from deploy.laptop import Stack
from tests.live.data_center import DataCenter, until
from tests.sweep import failpoints
from tests.sweep.failpoints import Failpoint

pytestmark = pytest.mark.live

KINDS = ("kvm", "lxc")
MOMENTS = {
    "before its effect": "before",
    "during its effect": "during",
    "after its effect": "after",
    "between effect and settling": "settling",
}
STEPS = {"launch": 4, "poweroff": 1, "poweron": 2, "terminate": 2}
ENDS = {"launch": "running", "poweroff": "halted", "poweron": "running", "terminate": "terminated"}
PATIENCE_S = 30.0


class Killed:
    """A data center whose lanes have failpoints, and one instance of each kind that walks through all verbs."""

    def __init__(self, data_center: DataCenter, armed: Path) -> None:
        self.data_center = data_center
        self.armed = armed
        self.parties = 0

    def arm(self, verb: str, moment: str) -> list[Failpoint]:
        """In each step of what is asked for next, two workers meet and one of them kills both."""
        points = []
        newest = self.data_center.sql("SELECT max(id) AS id FROM operations_operation")[0]["id"] or 0
        for position in range(1, STEPS[verb] + 1):
            self.parties += 1
            for kind in KINDS:
                name = f"{self.parties:04d}@{kind}"
                points.append(Failpoint(name, position, moment, "kill", newer_than=newest, party=len(KINDS)))
        for point in points:
            failpoints.arm(self.armed, point)
        return points

    def disarm(self) -> None:
        failpoints.disarm(self.armed)

    def ask(self, verb: str, uids: dict[str, str]) -> dict[str, str]:
        """Ask for the verb of both; returns the operations by kind. A launch makes the instances and their ids."""
        operations = {}
        for kind in KINDS:
            if verb == "launch":
                asked = self.data_center.create(kind, f"{kind}-{self.parties}")
                uids[kind], operations[kind] = asked["id"], asked["operation"]["id"]
            else:
                operations[kind] = self.data_center.api.verb(uids[kind], verb)
        return operations


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    """A stack of its own, started with the settings that have failpoints."""
    scratch = tmp_path_factory.mktemp("killed")
    (armed := scratch / "armed").mkdir()
    extra = {"DJANGO_SETTINGS_MODULE": "tests.live.failpoint_settings", "VDC_FAILPOINTS": str(armed)}
    environment = Stack.environment
    center = DataCenter(f"vdct{os.getpid()}k", scratch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stack, "environment", lambda stack: environment(stack) | extra)
        try:
            center.start()
            yield Killed(center, armed)
        finally:
            center.clean()


@pytest.mark.parametrize("when", MOMENTS)
def test_a_worker_that_is_killed_in_any_step_of_any_verb_costs_an_attempt_and_nothing_else(killed: Killed, when: str):
    center = killed.data_center
    uids: dict[str, str] = {}
    for verb in STEPS:
        points = killed.arm(verb, MOMENTS[when])
        operations = killed.ask(verb, uids)
        stories = {kind: center.ended(uid) for kind, uid in operations.items()}
        reached = {point.position for point in points if failpoints.is_reached(killed.armed, point)}
        killed.disarm()
        what = f"{verb}, killed {when} in steps {sorted(reached)}"
        # An image that is in the store already is found without changing anything.
        assert reached == set(range(1, STEPS[verb] + 1)) or MOMENTS[when] == "during", what
        for kind, story in stories.items():
            assert story["state"] == "done", f"{what}, {kind}: {json.dumps(story, indent=1)}"
            lost = {step["position"] for step in story["steps"] if "lost" in _outcomes(step)}
            assert lost == reached or MOMENTS[when] == "during", f"{what}, {kind}: {json.dumps(story, indent=1)}"
            assert center.instance(uids[kind])["state"] == ENDS[verb]
        until(lambda: not audit(center.stack), f"{what}: {audit(center.stack)} to be mended", PATIENCE_S)


def _outcomes(step: dict) -> list[str]:
    return [attempt["outcome"] for attempt in step["attempts"]]


def test_all_verbs_that_the_api_offers_are_killed_here(killed: Killed):
    """A new verb of instances needs its number of steps in STEPS; retry goes on with one of those."""
    from instances.verbs import INSTANCE

    assert {verb.name for verb in INSTANCE if not verb.resumes} == set(STEPS)
