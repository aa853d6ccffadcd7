"""One attempt of one step while it runs: what work sees of it, and how it hears that it should stop."""

from __future__ import annotations

import os
import platform
import threading
from typing import Any

from core.errors import Fenced, WorkError
from operations.models import Operation, Step
from operations.states import StepState
from operations.step_log import StepLog

MOST_COMMANDS = 100  # kept in the story of one step


class Stopping(WorkError):
    """The worker goes down in order: hand the step back, its next attempt goes on."""


def worker_name() -> str:
    """Who this process is, for the story: host and pid."""
    return f"{platform.node()}:{os.getpid()}"


class StepRun:
    """The `Watch` of a claimed step. Calls come from the thread that works; stop reasons from the keeper's."""

    def __init__(self, step: Step, operation: Operation, later: list[Step]) -> None:
        self.step = step
        self.operation = operation
        self.later = later  # the steps after it, as they were when it was claimed
        self.undoing = step.state == StepState.UNDOING
        self.commands: list[dict[str, Any]] = list(step.commands)
        self.log = StepLog(step.log, step.attempt)
        # What an earlier attempt said stays until this one knows better; an undo says nothing.
        self.done: int | None = step.progress_done
        self.total: int | None = step.progress_total
        self.unit = step.progress_unit
        self.moved = 0  # counts proofs of life, for the keeper
        self._stop: WorkError | None = None
        self._stopped = threading.Event()

    @property
    def subject_uid(self) -> str:
        return self.operation.subject_uid

    @property
    def params(self) -> dict[str, Any]:
        """The step's own parameters."""
        return self.step.params

    @property
    def tag(self) -> str:
        """Names what this attempt makes for a while: "op-abc.1.2" is attempt 2 of step 1."""
        return f"{self.operation.uid}.{self.step.position}.{self.step.attempt}"

    @property
    def words(self) -> dict[str, Any]:
        """What every log line of this attempt carries."""
        known = {
            "operation": self.operation.uid,
            "step": self.step.task,
            "subject": self.subject_uid,
            "attempt": self.step.attempt,
            "node": self.step.node,
            "request_id": self.operation.request_id,
        }
        return {name: value for name, value in known.items() if value}

    def stop(self, why: WorkError) -> None:
        """Ask the work to end at its next safe point; the first reason counts, but being fenced always does."""
        if self._stop is None or isinstance(why, Fenced):
            self._stop = why
        self._stopped.set()

    def checkpoint(self) -> None:
        if self._stop is not None:
            raise self._stop

    def pause(self, seconds: float) -> None:
        self._stopped.wait(seconds)
        self.checkpoint()

    def progress(self, done: int, total: int | None, unit: str) -> None:
        if done != self.done:
            self.moved += 1
        self.done, self.total, self.unit = done, total, unit

    def ran(self, command: Any) -> None:
        """Keep a finished command (`argv`, `exit_code`, `output_tail`) for the story."""
        self.moved += 1
        if len(self.commands) < MOST_COMMANDS:
            self.commands.append(
                {"argv": list(command.argv), "exit_code": command.exit_code, "output_tail": command.output_tail}
            )
