"""The failpoints as an app of Django, for the lanes of a whole stack; their directory is named in the environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from django.apps import AppConfig


class FailpointsConfig(AppConfig):
    name = "tests.sweep"
    label = "failpoints"
    path = str(Path(__file__).parent)

    def ready(self) -> None:
        if "lane" in sys.argv:
            from tests.sweep.failpoints import Failpoints

            Failpoints(Path(os.environ["VDC_FAILPOINTS"])).install()
