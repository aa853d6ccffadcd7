"""Where this process belongs: the stack file that `make up` writes, `/var/lib/<name>/stack.json`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class NoStack(SystemExit):
    """Ends the process with one sentence instead of a traceback."""


def stack_path() -> Path:
    """`VDC_STACK_FILE`, or the file of the stack named `VDC_NAME` (`vdc` if nothing is said)."""
    return Path(os.environ.get("VDC_STACK_FILE") or f"/var/lib/{os.environ.get('VDC_NAME', 'vdc')}/stack.json")


def read_stack() -> dict[str, Any]:
    """The stack file as it stands; it holds secrets, so it is never logged."""
    path = stack_path()
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise NoStack(
            f"There is no stack named {path.parent.name!r} ({path} is missing); run `make up` first."
        ) from None
    except PermissionError:
        raise NoStack(f"{path} may be read by root only; run this as root.") from None
    except json.JSONDecodeError as exc:
        raise NoStack(f"{path} is damaged ({exc}); run `make up` to write it anew.") from None
