"""The campaign's view into the database of its stack: what no door shows, asked past all that is being broken."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import psycopg2
import psycopg2.extras

PATIENCE_S = 60.0
AGAIN_S = 0.5
STATEMENT_LIMIT = "-c statement_timeout=5s"


class Record:
    """Rows of the stack's own database."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._database = content["database"]

    def rows(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """One statement in a connection of its own. Raises psycopg2.Error; a frozen server holds it up."""
        connection = psycopg2.connect(
            host=self._database["HOST"],
            port=self._database["PORT"],
            dbname=self._database["NAME"],
            user=self._database["USER"],
            password=self._database["PASSWORD"],
            connect_timeout=3,
            options=STATEMENT_LIMIT,
            cursor_factory=psycopg2.extras.RealDictCursor,
        )
        with contextlib.closing(connection), connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return [dict(row) for row in cursor.fetchall()] if cursor.description else []

    def insist(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """The same once all faults are over: a server that has just been killed still recovers."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.rows(statement, *values)
            except psycopg2.Error:
                if time.monotonic() > deadline:
                    raise
                time.sleep(AGAIN_S)
