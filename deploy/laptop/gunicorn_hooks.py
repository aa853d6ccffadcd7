"""What gunicorn and its workers do beside serving: they log as all do, and workers end with their master.

A worker whose master was killed would finish its connections first, for up to half a minute, and keep the port from
the master that supervisor starts anew.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Any

from core.logs import logging_config

PR_SET_PDEATHSIG = 1

# Read by gunicorn. Its own handlers go, its lines reach those of everyone.
_said = {"handlers": [], "propagate": True}
logconfig_dict = logging_config()
logconfig_dict["loggers"] |= {"gunicorn.error": _said, "gunicorn.access": {"handlers": [], "propagate": False}}


def post_fork(arbiter: Any, worker: Any) -> None:
    """Called by gunicorn in each new worker."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "PR_SET_PDEATHSIG")
    if os.getppid() != arbiter.pid:  # it was killed before we asked
        os.kill(os.getpid(), signal.SIGKILL)
