"""Sizes, times and durations as people read them, and sizes as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal

from cli.errors import WrongUse

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_WRITTEN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGTP]i?)?B?\s*", re.IGNORECASE)


def size(count: float | None) -> str:
    """4294967296 → "4.0 GiB"."""
    if count is None:
        return "-"
    value, unit = float(count), 0
    while round(value, 1) >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def memory(mib: int | None) -> str:
    """256 → "256 MiB", 2048 → "2 GiB": memory comes in round numbers."""
    if mib is None:
        return "-"
    return f"{mib // 1024} GiB" if mib >= 1024 and mib % 1024 == 0 else f"{mib} MiB"


def parse_size(text: str) -> int:
    """ "10GiB", "512 MiB", "10G" or a number of bytes → bytes; every unit counts in 1024. Raises WrongUse."""
    match = _WRITTEN.fullmatch(text)
    if match is None:
        raise WrongUse(f"{text!r} is not a size; write 10GiB, 512MiB or a number of bytes.")
    power = "BKMGTP".index((match[2] or "B")[0].upper())
    return int(Decimal(match[1]) * 1024**power)


def duration(seconds: float) -> str:
    """0.35 → "0.35 s", 27.7 → "27.7 s", 125 → "2 m 05 s", 7380 → "2 h 03 m", 200000 → "2 d 7 h"."""
    seconds = max(seconds, 0.0)
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def now() -> datetime:
    return datetime.now(UTC).astimezone()


def moment(iso: str | None) -> datetime | None:
    """An API time ("2026-03-01T13:02:11.5Z") in the local zone; None for none."""
    if not iso:
        return None
    try:
        return datetime.fromisoformat(iso).astimezone()
    except ValueError:
        return None


def between(start: str | None, end: str | None) -> float | None:
    """Seconds from one API time to another; up to now if the second is none."""
    began = moment(start)
    if began is None:
        return None
    return ((moment(end) or now()) - began).total_seconds()


def age(iso: str | None) -> str:
    """ "2 m ago", in one unit."""
    seconds = between(iso, None)
    if seconds is None:
        return "-"
    for unit, length in (("y", 365 * 86400), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return "just now"


def when(iso: str | None) -> str:
    """ "14:02:11, 2 m ago" for today, else with the date: for cells of tables."""
    at = moment(iso)
    if at is None:
        return "-"
    today = now()
    pattern = "%H:%M:%S" if at.date() == today.date() else "%m-%d %H:%M" if at.year == today.year else "%Y-%m-%d"
    return f"{at.strftime(pattern)}, {age(iso)}"


def full_time(iso: str | None) -> str:
    """ "2026-03-01 14:02:11 CET, 2 m ago"."""
    at = moment(iso)
    return "-" if at is None else f"{at.strftime('%Y-%m-%d %H:%M:%S %Z')}, {age(iso)}"


def clock(iso: str | None, *, day_of: str | None = None, milliseconds: bool = False) -> str:
    """ "14:02:11"; with the date in front if that is another day than `day_of`."""
    at = moment(iso)
    if at is None:
        return "-"
    day = moment(day_of)
    date = f"{at:%Y-%m-%d} " if day is not None and day.date() != at.date() else ""
    return f"{date}{at:%H:%M:%S}" + (f".{at.microsecond // 1000:03}" if milliseconds else "")


def amount(progress: dict) -> str:
    """ "1.2 GiB of 4.0 GiB", "3 of 10 steps", "12 s" from a step's progress."""
    done, total, unit = progress.get("done") or 0, progress.get("total"), progress.get("unit")
    if unit == "bytes":
        return size(done) if total is None else f"{size(done)} of {size(total)}"
    name = "s" if unit == "seconds" else unit or ""
    return f"{done:g} {name}".strip() if total is None else f"{done:g} of {total:g} {name}".strip()
