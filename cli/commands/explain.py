"""`vdc explain`: from the symptom to the cause, on one page."""

from __future__ import annotations

from cli.commands.options import AnyId, Output, OutputOption
from cli.commands.session import show_one
from cli.render.explanation import explanation


def explain(uid: AnyId, output: OutputOption = Output.TABLE) -> None:
    """Say what is wrong with something, why, and what helps.

    What is asked of it, what was seen and how long ago, what was done to it with the log lines of the nodes, what it
    holds, and what can be done next.

    \b
    vdc explain i-7d2kq9xw
    vdc explain op-7k2m9x4q
    """
    show_one(f"explain/{uid}", explanation, output=output)
