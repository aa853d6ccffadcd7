"""GET /readyz: whether this process could do its work now, with a line for each thing that it needs.

    200 {"ready": true,  "checks": {"database": "ok", "migrations": "ok", "broker": "ok"}}
    503 {"ready": false, "checks": {"database": "does not answer within 2 s", …}}

One request at a time asks, for two seconds at most, over lines of its own; who comes meanwhile is told the last answer.
So a mute database holds one thread of the process, and no answer is older than the one before it.
"""

from __future__ import annotations

import functools
import json
import threading
from dataclasses import dataclass, field

import psycopg2
from django.db.migrations.loader import MigrationLoader
from django.http import HttpRequest, HttpResponse

from core.database import ask_alone
from operations import bell

ANSWER_S = 2.0
OK = "ok"
UNKNOWN = "not known while the database is away"


@dataclass(slots=True)
class Readiness:
    """What was found last, and who looks now."""

    checks: dict[str, str] = field(default_factory=lambda: {"database": "is being asked"})
    _looking: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> dict[str, str]:
        """Ask again, unless somebody does already."""
        if self._looking.acquire(blocking=False):
            try:
                self.checks = {**_database(), "broker": _broker()}
            finally:
                self._looking.release()
        return self.checks


_readiness = Readiness()


def readyz(request: HttpRequest) -> HttpResponse:
    checks = _readiness.look()
    ready = all(said == OK for said in checks.values())
    body = json.dumps({"ready": ready, "checks": checks}, indent=1)
    return HttpResponse(body + "\n", content_type="application/json", status=200 if ready else 503)


def _database() -> dict[str, str]:
    """The database, and whether its tables are those that this code wants."""
    try:
        applied = set(ask_alone("SELECT app, name FROM django_migrations", within_s=ANSWER_S))
    except psycopg2.errors.UndefinedTable:
        applied = set()
    except psycopg2.Error:
        return {"database": f"does not answer within {ANSWER_S:g} s or refuses", "migrations": UNKNOWN}
    missing = sorted(_wanted() - applied)
    if not missing:
        return {"database": OK, "migrations": OK}
    app, name = missing[0]
    return {"database": OK, "migrations": f"{len(missing)} not applied, first {app}.{name}; run `manage.py migrate`"}


@functools.cache
def _wanted() -> set[tuple[str, str]]:
    """All migrations on disk, without those that others replace."""
    loader = MigrationLoader(None)
    return set(loader.graph.nodes)


def _broker() -> str:
    return OK if bell.is_heard() else "Redis does not answer; what is asked for waits until it does"
