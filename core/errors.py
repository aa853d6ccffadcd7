"""Everything that can go wrong while work is done or asked for, drawn as one tree.

Exception
├── WorkError                what a step can meet; `advice` says what to do next
│   ├── Unreachable          database or broker did not answer: only delays, decides nothing
│   ├── Transient            may work next time: tried again within the step's budget
│   ├── Permanent            will not work by itself: fails the step
│   ├── Cancelled            somebody asked to stop; raised at a safe point
│   └── Fenced               another attempt owns the step now: stop and write nothing
└── Refusal                  what a door answers instead of doing; has a stable `code`
    ├── Invalid       400    a field is wrong, named in `field`
    ├── Unauthorized  401    no token, or a bad one
    ├── Forbidden     403    the role does not allow it
    ├── NotFound      404    not there, or someone else's
    ├── Conflict      409    wrong state, busy, taken, no room
    ├── TooLarge      413    more bytes than were announced or allowed
    └── Unavailable   503    a part is away; try again after `retry_after_s`
"""

from __future__ import annotations

from typing import Any


class WorkError(Exception):
    """A fault of work. The message names the thing; `advice` says what a person can do."""

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


class Unreachable(WorkError):
    """The outcome is unknown, never assumed: ask again."""


class Transient(WorkError):
    """Tried again with backoff."""


class Permanent(WorkError):
    """Fails the step at once."""


class Cancelled(WorkError):
    """The operation was cancelled or superseded."""


class Fenced(WorkError):
    """This attempt lost its claim."""


class Refusal(Exception):
    """A request that is not taken. `extra` lands in the problem document beside the code."""

    status = 400
    title = "The request was refused"

    def __init__(self, detail: str, *, code: str, field: str = "", **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.field = field
        self.extra = extra


class Invalid(Refusal):
    status = 400
    title = "The request is not valid"


class Unauthorized(Refusal):
    status = 401
    title = "Who are you?"


class Forbidden(Refusal):
    status = 403
    title = "Not allowed"


class NotFound(Refusal):
    status = 404
    title = "Not found"


class Conflict(Refusal):
    status = 409
    title = "Not possible now"


class TooLarge(Refusal):
    status = 413
    title = "Too large"


class Unavailable(Refusal):
    status = 503
    title = "A part of the system is away"

    def __init__(self, detail: str, *, code: str, retry_after_s: int = 2, **extra: Any) -> None:
        super().__init__(detail, code=code, **extra)
        self.retry_after_s = retry_after_s
