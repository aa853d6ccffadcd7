"""Sizes and durations as people read them."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(count_bytes: float | None) -> str:
    """4294967296 → "4.0 GiB"; "–" for None."""
    if count_bytes is None:
        return "–"
    value, unit = float(count_bytes), 0
    while round(value, 1) >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def memory(count_mib: int | None) -> str:
    """256 → "256 MiB", 2048 → "2 GiB": memory comes in round numbers."""
    if count_mib is None:
        return "–"
    return f"{count_mib // 1024} GiB" if count_mib >= 1024 and count_mib % 1024 == 0 else f"{count_mib} MiB"


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
