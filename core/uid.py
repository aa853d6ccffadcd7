"""Public ids: `<prefix>-<8 of [a-z0-9]>`, stored whole and never used again."""

from __future__ import annotations

import re
import secrets
import string

MAX_LENGTH = 255  # operators may choose longer ids than we make, such as `wmi-demo1`
ALPHABET = string.ascii_lowercase + string.digits
UID = re.compile(r"[a-z]+-[a-z0-9][a-z0-9-]*")


def new_uid(prefix: str) -> str:
    """A fresh id such as `i-k3v90qzd`; 36^8 values, and the unique constraint refuses the rare twin."""
    return f"{prefix}-" + "".join(secrets.choice(ALPHABET) for _ in range(8))


def is_uid(text: object, prefix: str = "") -> bool:
    """True if `text` has the form of a public id, of this kind if a prefix is given."""
    if not isinstance(text, str) or len(text) > MAX_LENGTH or UID.fullmatch(text) is None:
        return False
    return not prefix or text.startswith(f"{prefix}-")
