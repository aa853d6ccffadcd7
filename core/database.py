"""How long we wait for PostgreSQL, and what its silence means.

psycopg2 waits without limit for a server that is mute: time-outs of the server are kept by the server, and keepalives
are answered by the kernel of a stopped process. So every wait goes through `_wait`, which polls with a deadline and
only *raises*: closing the connection in there would deadlock on psycopg2's own lock. The connection that was given up
is dead (`closed == 2`); Django drops it at its next use.

    web       5 s in all for one request: health check, connect and statements together, then a breaker
    worker   10 s for each call
    tool     no deadline: migrations may take their time
"""

from __future__ import annotations

import select
import threading
import time

import psycopg2
from django.db import DatabaseError, InterfaceError, connections
from psycopg2 import extensions

WEB_BUDGET_S = 5.0
WORKER_CALL_S = 10.0
PAUSE_S = 2.0  # how long the breaker refuses after an expiry, without trying

DATABASE_ERRORS = (DatabaseError, InterfaceError)  # InterfaceError is no DatabaseError in Django's tree
_OUR_MISTAKES = (psycopg2.IntegrityError, psycopg2.DataError, psycopg2.ProgrammingError, psycopg2.NotSupportedError)
_AWAY = frozenset({"08", "53", "57"})  # connection, resources, operator intervention
_BUSY = frozenset({"40001", "40P01", "55P03", "57014"})  # serialization, deadlock, lock time-out, statement time-out
_IDLE_IN_TRANSACTION = "25P03"


class Mute(psycopg2.OperationalError):
    """The deadline of a wait has passed. Django wraps it like every other loss of the connection."""


def unreachable(exc: BaseException) -> bool:
    """True if a database error only delays: the outcome is unknown or nothing happened, so ask again.

    Looks at psycopg2's error, since Django's classes mix lost lines with slow statements; Django's own database
    errors have no cause: they are bugs. A connection that was lost while connecting or speaking has no code at all.
    """
    if not isinstance(exc, DATABASE_ERRORS):
        return False
    cause = exc.__cause__
    if not isinstance(cause, psycopg2.Error) or isinstance(cause, _OUR_MISTAKES):
        return False
    code = cause.pgcode
    return code is None or code[:2] in _AWAY or code in _BUSY or code == _IDLE_IN_TRANSACTION


def busy(exc: BaseException) -> bool:
    """True for the kind of `unreachable` where the server did answer: it waited too long for a lock or a result."""
    return unreachable(exc) and getattr(exc.__cause__, "pgcode", None) in _BUSY


class _Budget(threading.local):
    """What is left of the time that the request of this thread may wait for the database; None outside of requests."""

    left_s: float | None = None


class Breaker:
    """Refuses requests after the database was mute, so that they do not queue up behind its silence.

        closed ──expiry──► open, 2 s ──next request──► on trial ──answer──► closed
                              ▲──────────expiry────────────┘

    One request at a time is let through on trial. It answers for itself within its budget, so a trial that ends
    without having asked the database gives its place to the next one.
    """

    def __init__(self, *, pause_s: float = PAUSE_S, trial_s: float = WEB_BUDGET_S) -> None:
        self.pause_s = pause_s
        self.trial_s = trial_s
        self._lock = threading.Lock()
        self._tripped = False
        self._closed_to_others_until = 0.0

    def admits(self) -> bool:
        """False: answer 503 now."""
        if not self._tripped:
            return True
        with self._lock:
            now = time.monotonic()
            if self._tripped and now < self._closed_to_others_until:
                return False
            self._closed_to_others_until = now + self.trial_s
            return True

    @property
    def is_tripped(self) -> bool:
        return self._tripped

    def trip(self) -> None:
        with self._lock:
            self._tripped = True
            self._closed_to_others_until = time.monotonic() + self.pause_s

    def answered(self) -> None:
        """The database spoke: everyone may ask again."""
        with self._lock:
            self._tripped = False

    def trial_over(self) -> None:
        """A trial ended; the next request tries as soon as the pause is over, not after the trial's whole budget."""
        with self._lock:
            self._closed_to_others_until = min(self._closed_to_others_until, time.monotonic() + self.pause_s)


_budget = _Budget()
breaker = Breaker()


def begin_request() -> None:
    """Give the request that starts in this thread its whole budget; it holds until the next one starts."""
    _budget.left_s = WEB_BUDGET_S


def use_deadlines(process: str) -> None:
    """Install the waiting of a `web` or `worker` process, once, before its first connection."""
    if process == "web":
        extensions.set_wait_callback(_wait_within_the_request)
    elif process == "worker":
        extensions.set_wait_callback(_wait_within_the_call)


def ask_alone(statement: str, *, within_s: float) -> list[tuple]:
    """Rows of one statement over a connection of its own, which shares neither budget nor breaker with anyone.

    Raises psycopg2.Error when the database does not answer within `within_s`, or cannot be connected to.
    """
    begun = time.monotonic()
    settings = connections["default"].get_connection_params()
    names = ("host", "port", "dbname", "user", "password")
    own = psycopg2.connect(**{name: settings[name] for name in names if settings.get(name)}, async_=True)
    try:
        _wait(own, within_s)
        with own.cursor() as cursor:
            cursor.execute(statement)
            _wait(own, within_s - (time.monotonic() - begun))
            return cursor.fetchall()
    finally:
        own.close()


def _wait_within_the_call(connection: extensions.connection) -> None:
    _wait(connection, WORKER_CALL_S)


def _wait_within_the_request(connection: extensions.connection) -> None:
    # What is counted is the time spent waiting, not the length of the request: an upload may take an hour.
    left_s = WEB_BUDGET_S if _budget.left_s is None else _budget.left_s
    begun = time.monotonic()
    try:
        _wait(connection, left_s)
    except Mute:
        breaker.trip()
        raise
    finally:
        if _budget.left_s is not None:
            _budget.left_s -= time.monotonic() - begun
    if breaker.is_tripped:
        breaker.answered()


def _wait(connection: extensions.connection, most_s: float) -> None:
    """Drive the connection until its answer is there; raise Mute when `most_s` seconds have passed."""
    deadline = time.monotonic() + most_s
    while (state := connection.poll()) != extensions.POLL_OK:
        poller = select.poll()  # not select(): it cannot take descriptors above 1023
        poller.register(connection.fileno(), select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not poller.poll(left_s * 1000):
            raise Mute(f"PostgreSQL did not answer within {max(most_s, 0):.1f} s")
