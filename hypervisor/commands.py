"""Runs the small tools of a node (nft, dnsmasq …): bounded, never through a shell, told to the story of the step."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from hypervisor.contract import CommandRecord, Permanent, Transient, Watch

OUTPUT_TAIL_CHARACTERS = 2000


def run(
    argv: Sequence[str], *, stdin: str = "", timeout_s: float = 20.0, watch: Watch | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end and return it with its exit code and output; the caller judges the exit code.

    Raises Permanent when the tool is not installed, Transient when it does not end within `timeout_s`.
    """
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            start_new_session=True,  # a daemon must not get the signals that are meant for the worker
            env={**os.environ, "LC_ALL": "C"},  # messages are read below and shown to people in one language
        )
    except FileNotFoundError as fault:
        raise Permanent(
            f"The program {argv[0]} is not installed on this node.", advice=f"Install {argv[0]}."
        ) from fault
    except subprocess.TimeoutExpired as fault:
        raise Transient(f"{argv[0]} did not end within {timeout_s:g} seconds.") from fault
    if watch is not None:
        tail = (done.stdout + done.stderr)[-OUTPUT_TAIL_CHARACTERS:]
        watch.ran(CommandRecord(argv=tuple(argv), exit_code=done.returncode, output_tail=tail))
    return done
