"""A fault in the words of the story: its class, what it says, what to do next, and where in the code it came up."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from django.conf import settings

from core.errors import Permanent, Refusal, WorkError

ROOT = Path(settings.BASE_DIR)


def foreseen(exc: Exception) -> WorkError:
    """The fault itself, or a Permanent one that says that nobody foresaw this exception."""
    if isinstance(exc, WorkError):
        return exc
    if isinstance(exc, Refusal):
        fault = Permanent(exc.detail)
    else:
        fault = Permanent(
            f"{type(exc).__name__}: {exc}",
            advice="This is a defect of the software: please report it with this story.",
        )
    fault.__traceback__ = exc.__traceback__
    return fault


def told(fault: WorkError, *, step: str) -> dict[str, Any]:
    """What step and operation keep of a fault: class, message, advice, step, place."""
    return {
        "class": type(fault).__name__,
        "message": fault.message,
        "advice": fault.advice,
        "step": step,
        "place": _place(fault),
    }


def _place(fault: BaseException) -> str:
    """Where it came up: "volumes/tasks.py:41 in fetch_image", the innermost line of ours.

    A fault that was translated at a border came up where its first cause did, not where it was translated.
    """
    while fault.__cause__ is not None:
        fault = fault.__cause__
    frames = traceback.extract_tb(fault.__traceback__)
    ours = [frame for frame in frames if ROOT in Path(frame.filename).parents and ".venv" not in frame.filename]
    if not (ours or frames):
        return ""
    frame = (ours or frames)[-1]
    path = Path(frame.filename)
    shown = path.relative_to(ROOT) if ROOT in path.parents else path.name
    return f"{shown}:{frame.lineno} in {frame.name}"
