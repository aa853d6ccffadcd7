"""What `make status` says of a program that ended: its last line, in words."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.laptop.health import last_words


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("FATAL:  could not open the file", "FATAL:  could not open the file"),
        (json.dumps({"event": "the lane ended in order"}), "the lane ended in order"),
        (json.dumps({"event": "Redis does not answer", "error": "refused"}), "Redis does not answer: refused"),
        (json.dumps({"event": "it broke", "exception": "Traceback\n  x\nValueError: no"}), "it broke: ValueError: no"),
        ("[1]", "[1]"),
        ("", ""),
    ],
)
def test_the_last_line_is_told_in_words(tmp_path: Path, line: str, said: str):
    (tmp_path / "web.log").write_text(f"something before\n{line}\n" if line else "")
    stack = SimpleNamespace(log=lambda program: tmp_path / f"{program}.log")
    assert last_words(stack, "web") == said
    assert last_words(stack, "never-started") == ""
