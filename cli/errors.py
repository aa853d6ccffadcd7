"""Everything that makes `vdc` end with another exit code than 0, drawn as one tree.

Exception
└── CliError              one or more lines for people
    ├── WrongUse     2    arguments, files or the login are not usable
    ├── Refused      1    the API said no
    ├── Away         1    nobody answered, or only "not now": may be tried again
    ├── NotDone      1    an operation ended otherwise than done
    └── LeftRunning  130  Ctrl-C: we left, the work goes on
"""

from __future__ import annotations


class CliError(Exception):
    """`str(error)` is what a person reads on stderr, without a traceback."""

    exit_code = 1


class WrongUse(CliError):
    exit_code = 2


class Refused(CliError):
    """The API answered with a problem document. `status` is its HTTP status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Away(CliError):
    """No usable answer. `reason` is short, for notices; `retry_after_s` is what the server asked for, or None."""

    def __init__(self, message: str, *, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class NotDone(CliError):
    pass


class LeftRunning(CliError):
    exit_code = 130
