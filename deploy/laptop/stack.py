"""A stack by its name: where everything of it lives, and the stack file that tells the other processes."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLONE = Path(__file__).resolve().parents[2]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")


class StackError(Exception):
    """One sentence for the person at the terminal: what is wrong and what to do."""


@dataclass(frozen=True)
class Stack:
    """The paths of one stack. Nothing of a stack lies outside `state_dir`, `run_dir` and its cgroups."""

    name: str

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise StackError(
                f"{self.name!r} cannot name a stack: a lower-case letter first, then at most 19 of a-z, 0-9 and '-'."
            )

    @property
    def state_dir(self) -> Path:
        return Path("/var/lib") / self.name

    @property
    def run_dir(self) -> Path:
        return Path("/run") / self.name

    @property
    def file(self) -> Path:
        return self.state_dir / "stack.json"

    @property
    def logs_dir(self) -> Path:
        return self.state_dir / "logs"

    @property
    def libvirt_dir(self) -> Path:
        """What libvirtd sees below /etc, /var/lib and /var/log is kept here."""
        return self.state_dir / "libvirt"

    @property
    def supervisor_socket(self) -> Path:
        return self.run_dir / "supervisor.sock"

    @property
    def going_down(self) -> Path:
        """Present while the stack is being stopped, so that an interrupted stop is finished first."""
        return self.run_dir / "going-down"

    def uri(self, driver: str) -> str:
        """libvirt's address of this stack; `driver` is qemu or lxc."""
        return f"{driver}+unix:///system?socket={self.run_dir}/libvirt/libvirt-sock"

    def log(self, program: str) -> Path:
        return self.logs_dir / f"{program}.log"

    def environment(self) -> dict[str, str]:
        """What every process of the stack starts with; nothing of the caller's own environment gets in."""
        return {
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "HOME": "/root",
            "PYTHONUNBUFFERED": "1",
            "VDC_NAME": self.name,
        }

    def read(self) -> dict[str, Any] | None:
        """The stack file, None if there is none."""
        try:
            return json.loads(self.file.read_text())
        except FileNotFoundError:
            return None
        except json.JSONDecodeError as exc:
            raise StackError(
                f"{self.file} is damaged ({exc}); restore it, or remove {self.state_dir} by hand."
            ) from exc

    def write(self, content: dict[str, Any]) -> None:
        """Replaces the stack file at once; it holds secrets, so only root may read it."""
        fresh = self.file.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.file)
