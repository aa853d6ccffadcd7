"""A real lane of the tests' node: `python -m tests.operations.lane_process [take-over]`."""

from __future__ import annotations

import os
import sys

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "vdcproject.settings"
django.setup()

from operations.lane import serve  # noqa: E402 - needs the settings
from operations.recovery import take_over  # noqa: E402
from tests.operations import parts  # noqa: E402

if __name__ == "__main__":
    with parts.registered():
        if "take-over" in sys.argv:
            take_over([parts.NODE], "ops")
        serve("ops", [parts.NODE])
