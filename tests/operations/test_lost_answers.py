"""The line to the database breaks around a COMMIT: what was said is said once, and what follows is rung."""

from __future__ import annotations

import random
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest
from django.db import connection

from core.errors import Transient
from operations import protocol, settling
from operations.keeper import keeper
from operations.models import Event
from tests.operations import parts
from tests.operations.cutting_proxy import CuttingProxy
from tests.operations.parts import act, begin, steps_of, volume


@pytest.fixture
def proxy(bells, cluster, monkeypatch):
    """Steps run in `with proxy(...)` speak to the database through it."""
    monkeypatch.setattr(settling, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(keeper, "keeping", lambda run: nullcontext())  # its commits must not meet the cuts
    direct = connection.settings_dict["HOST"]
    with tempfile.TemporaryDirectory() as folder:
        proxy = CuttingProxy(Path(folder), Path(direct) / ".s.PGSQL.5432")

        def run(bell, *cuts):
            connection.close()
            connection.settings_dict["HOST"] = folder
            proxy.cuts[:] = cuts
            try:
                protocol.run_step(*bell)
                assert proxy.cuts == [], "the test expected more commits"
            finally:
                connection.close()
                connection.settings_dict["HOST"] = direct

        yield run
        proxy.close()


def done_once(operation):
    operation.refresh_from_db()
    assert operation.state == "done"
    assert Event.objects.filter(operation_uid=operation.uid, name="volume.build.done").count() == 1
    for step in steps_of(operation):
        assert [past["outcome"] for past in step.attempts] == ["done"], step.attempts


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_claim_whose_answer_was_lost_is_claimed_once(bells, proxy, cut):
    did = []
    act("count")(lambda run: did.append(run.step.attempt))
    operation = begin(volume(), {"act": "count"})
    proxy(bells.pop(), cut)
    assert did == [1]
    done_once(operation)


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_settlement_whose_answer_was_lost_is_written_once_and_the_next_step_is_rung(bells, proxy, cut):
    wrote = []
    parts.settled["nothing"] = lambda run, result: wrote.append(run.tag)
    operation = begin(volume(), {"act": "nothing", "task": "part"}, {"act": "nothing", "lane": "bulk"})
    proxy(bells.pop(), "", cut)
    first, second = steps_of(operation)
    assert (first.state, second.state) == ("done", "queued")
    assert bells == [(second.pk, 1)], "the hook of the lost COMMIT never ran"
    assert len(wrote) == (2 if cut == "before" else 1), "a try that was rolled back leaves nothing"
    bells.answer()
    done_once(operation)


def test_going_on_inline_survives_a_lost_answer(bells, proxy):
    operation = begin(volume(), {"act": "nothing"}, {"act": "nothing"}, {"act": "nothing"})
    proxy(bells.pop(), "", "after", "before", "after", "after")
    done_once(operation)


def test_a_retry_whose_answer_was_lost_counts_once(bells, proxy, pauses_are_over):
    @act("flaky")
    def flaky(run):
        if run.step.attempt == 1:
            raise Transient("the line is bad")

    operation = begin(volume(), {"act": "flaky"})
    proxy(bells.pop(), "", "after")
    [step] = steps_of(operation)
    assert (step.state, step.attempt, step.retries_left) == ("queued", 2, 1)
    assert [past["outcome"] for past in step.attempts] == ["retried"]
    bells += pauses_are_over()
    bells.answer()
    assert [past["outcome"] for past in steps_of(operation)[0].attempts] == ["retried", "done"]


def test_a_failure_and_its_undo_survive_lost_answers(bells, proxy):
    operation = begin(volume(), {"act": "nothing", "task": "part"}, {"act": "refuse", "task": "part"})
    proxy(bells.pop(), *["after", ""] * 7)  # two steps and two undos, claimed and settled, each told twice
    operation.refresh_from_db()
    assert (operation.state, operation.undone) == ("failed", ["refuse was unmade", "nothing was unmade"])
    assert Event.objects.filter(operation_uid=operation.uid, name="volume.build.failed").count() == 1


def test_many_settlements_over_a_line_that_breaks_at_random(bells, proxy):
    choice = random.Random(7)
    for _ in range(6):
        did = []
        act("count")(lambda run, did=did: did.append(run.step.position))
        operation = begin(volume(), {"act": "count"}, {"act": "count"}, {"act": "count"})
        cuts = [choice.choice(["", "before", "after"]) for _ in range(4)]
        proxy(bells.pop(0), *cuts)
        bells.answer()
        assert did == [1, 2, 3]
        done_once(operation)
