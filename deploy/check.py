"""`make check`: format, lint, import rules, migrations and deployment settings, without a running stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.laptop.claim import fresh
from deploy.laptop.stack import CLONE, Stack
from deploy.stages import stage

LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"
CHECKS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("format", "ruff format --check", ("-m", "ruff", "format", "--check", "--quiet", ".")),
    ("lint", "ruff check", ("-m", "ruff", "check", "--quiet", ".")),
    ("imports", "imports go downhill only", ("-c", LINT_IMPORTS)),
    # Without a database Django warns that it cannot compare with what was applied; the files are compared all the same.
    ("migrations", "no model is without its migration", ("-W", "ignore", "manage.py", "makemigrations", "--check")),
    ("deployment", "manage.py check --deploy", ("manage.py", "check", "--deploy", "--fail-level", "WARNING")),
)


def main() -> int:
    failed = []
    with tempfile.TemporaryDirectory() as directory:
        # Settings come from a stack file; this one belongs to no stack and its secrets are used by nobody.
        file = Path(directory) / "stack.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(fresh(Stack("vdc-check"), port=None)))
        environment = {**os.environ, "VDC_STACK_FILE": str(file)}
        for name, does, words in CHECKS:
            with stage(name, does) as progress:
                done = subprocess.run(
                    [sys.executable, *words], cwd=CLONE, env=environment, check=False, capture_output=True, text=True
                )
                progress.note = "" if done.returncode == 0 else f"{does}: not clean"
            if done.returncode != 0:
                failed.append(name)
                print(f"{done.stdout}{done.stderr}".rstrip(), flush=True)
    if failed:
        print(f"vdc: not clean: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
