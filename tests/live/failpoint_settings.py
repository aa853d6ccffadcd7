"""The product's settings with one app more: the lanes of a stack that starts with them have failpoints."""

from vdcproject.settings import *  # noqa: F403
from vdcproject.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.sweep.failpoints_app.FailpointsConfig"]
