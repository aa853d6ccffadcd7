"""What a campaign may break: only a stack that a campaign has made, told by a marker in its data directory."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from deploy.laptop import Stack, StackError, clean
from deploy.laptop.claim import claim

MARKER = "burnin-disposable"


def marker_of(stack: Stack) -> Path:
    return stack.state_dir / MARKER


def require_disposable(stack: Stack) -> None:
    """StackError with the reason, unless there is nothing of that name or it is marked as disposable."""
    if os.geteuid() != 0:
        raise StackError("A campaign makes a stack and mounts a disk: run this as root.")
    if not stack.state_dir.exists() or marker_of(stack).is_file():
        return
    raise StackError(
        f"{stack.state_dir} is not marked as disposable: there is no {MARKER} in it. A campaign kills, fills and "
        "removes, so it works only on data that a campaign has made. Choose a name that is free."
    )


def make_disposable(stack: Stack, **rest: object) -> None:
    """A fresh stack file and the marker; what an earlier campaign left is removed. `rest` goes into the stack file."""
    require_disposable(stack)
    clean(stack.name)
    content = claim(stack)
    words = {"made_by": "burnin", "made_at": datetime.now(UTC).isoformat(timespec="seconds")}
    marker_of(stack).write_text(json.dumps(words) + "\n")
    stack.write(content | rest)
