"""Plans are data, and nothing in them moves without an end."""

import pytest

from operations.plan import PlannedStep


def test_a_step_needs_a_deadline_or_a_longest_time_without_progress():
    with pytest.raises(ValueError, match=r"tests\.plain has no deadline"):
        PlannedStep("tests.plain", node="hn-1", lane="ops")
    assert PlannedStep("tests.plain", node="hn-1", lane="ops", deadline_s=1).idle_timeout_s is None
    assert PlannedStep("tests.plain", node="hn-1", lane="bulk", idle_timeout_s=1).deadline_s is None
