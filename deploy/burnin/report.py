"""What a campaign says: a line now and then, one closing line, and for a failed one all that tells why."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.burnin.faults import Happened
from deploy.burnin.schedule import Schedule
from deploy.burnin.verdict import Verdict
from deploy.laptop.stack import CLONE

DIRECTORY = CLONE / "build" / "burnin"


def closing_line(
    schedule: Schedule, verdict: Verdict, happened: list[Happened], settled_after_s: float | None, time_scale: float
) -> str:
    minutes = schedule.length_s / 60
    ended = ", ".join(f"{count} {state}" for state, count in sorted(verdict.operations.items()))
    kinds = Counter(entry.fault.kind for entry in happened)
    faults = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    settled = "not settled" if settled_after_s is None else f"settled after {settled_after_s:.1f} s"
    return (
        f"burnin seed {schedule.seed}: {minutes:g} min, time scale {time_scale:g}, "
        f"{sum(verdict.operations.values())} operations ({ended}), {len(happened)} faults ({faults}): "
        f"{len(verdict.lost)} lost, {len(verdict.duplicated)} duplicated, {len(verdict.hanging)} hanging, "
        f"{len(verdict.ownerless)} without owner, {len(verdict.untrue)} untrue, "
        f"{len(verdict.unexplained)} unexplained, {settled}"
    )


def write(
    schedule: Schedule,
    verdict: Verdict,
    happened: list[Happened],
    rest: dict[str, Any],
    stories: dict[str, Any],
) -> Path:
    """All of it as JSON; returns where. A campaign of the same seed replaces it."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    path = DIRECTORY / f"seed-{schedule.seed}.json"
    content = {
        "seed": schedule.seed,
        "length_s": schedule.length_s,
        "verdict": asdict(verdict),
        "faults": [
            {**asdict(entry.fault), "began_at": entry.began_at, "ended_at": entry.ended_at} for entry in happened
        ],
        **rest,
        "stories": stories,
    }
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")
    return path


def failure(schedule: Schedule, verdict: Verdict, happened: list[Happened], stories: dict[str, Any]) -> str:
    """The offences, the faults in order of time, and the stories of the offending operations."""
    lines = [f"Seed {schedule.seed} found:"]
    for offence in ("lost", "duplicated", "hanging", "ownerless", "untrue", "unexplained"):
        lines += [f"  {offence}: {sentence}" for sentence in getattr(verdict, offence)]
    lines.append("Faults:")
    lines += [f"  {_clock(entry.began_at)} {entry.fault}" for entry in happened]
    for uid, story in stories.items():
        lines.append(f"Story of {uid}: {story.get('verb')} of {story.get('subject', {}).get('id')}")
        lines += [f"  {event['at']} {event['name']}: {event['message']}" for event in story.get("events", [])]
    return "\n".join(lines)


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")
