"""Tallies: what was counted since the data center exists, for /metrics.

The engine's own path counts nothing. The sweep reads what has ended since its last look and adds it up, together with
the mark that it was counted: each operation counts once, whatever dies in between.
"""

from __future__ import annotations

from django.db import connection

from operations import timing
from operations.models import Tally

EVERY_S = 15 * timing.SCALE
MOST_AT_ONCE = 2000  # operations per statement: well below its time limit
BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, float("inf"))

OPERATIONS = "operations"  # verb, outcome
STEP_SECONDS = "step_seconds"  # task, outcome; of each attempt, from its claim to its end
STEPS_REUSED = "steps_reused"  # task, true or false: what it was to make was there already
LEASE_EXPIRIES = "lease_expiries"  # task
RECONCILE = "reconcile"  # kind, node

_ADD = """
    INSERT INTO operations_tally AS tally (metric, first, second, le, count, total) {rows}
    ON CONFLICT (metric, first, second, le)
    DO UPDATE SET count = tally.count + excluded.count, total = tally.total + excluded.total
"""
_COUNT_ENDED = """
    WITH fresh AS (
        SELECT id FROM operations_operation WHERE ended_at IS NOT NULL AND NOT tallied ORDER BY id LIMIT %(most)s
           FOR UPDATE SKIP LOCKED
    ), ended AS (
        UPDATE operations_operation AS operation SET tallied = true FROM fresh WHERE operation.id = fresh.id
     RETURNING operation.id, verb, state
    ), steps AS (
        SELECT task, attempts, result ->> 'was_present' AS was_present
          FROM operations_step WHERE operation_id IN (SELECT id FROM ended) AND attempts <> '[]'
    ), tries AS (
        SELECT task, try ->> 'outcome' AS outcome,
               extract(epoch FROM (try ->> 'ended_at')::timestamptz - (try ->> 'started_at')::timestamptz) AS seconds
          FROM steps, jsonb_array_elements(attempts) AS try
    ), timed AS (
        SELECT task, outcome, seconds::float,
               (SELECT min(le) FROM unnest(%(buckets)s::float[]) AS le WHERE seconds <= le) AS le FROM tries
    ), told AS (
        SELECT 'operations' AS metric, verb AS first, state AS second, 'Infinity'::float AS le, count(*), 0.0 AS total
          FROM ended GROUP BY verb, state
     UNION ALL
        SELECT 'step_seconds', task, outcome, le, count(*), sum(seconds) FROM timed GROUP BY task, outcome, le
     UNION ALL
        SELECT 'steps_reused', task, was_present, 'Infinity'::float, count(*), 0 FROM steps
         WHERE was_present IS NOT NULL GROUP BY task, was_present
    ), added AS (
        {add}
    )
    SELECT count(*) FROM ended
""".format(add=_ADD.format(rows="SELECT * FROM told"))  # noqa: S608 - the text is all ours


def count(metric: str, first: str, second: str = "", *, times: int = 1) -> None:
    """Add to one tally. For what happens rarely."""
    with connection.cursor() as cursor:
        cursor.execute(_ADD.format(rows="VALUES (%s, %s, %s, 'Infinity', %s, 0)"), [metric, first, second, times])


def count_ended(good_for_s: float) -> None:
    """The sweep's chore: all operations that ended since the last look, with their steps."""
    counted = MOST_AT_ONCE
    while counted == MOST_AT_ONCE:
        with connection.cursor() as cursor:
            cursor.execute(_COUNT_ENDED, {"most": MOST_AT_ONCE, "buckets": list(BUCKETS_S)})
            counted = cursor.fetchone()[0]


def counts(metric: str) -> dict[tuple[str, str], int]:
    """A metric's tallies by their two labels."""
    rows = Tally.objects.filter(metric=metric).order_by("first", "second")
    return {(row.first, row.second): row.count for row in rows}
