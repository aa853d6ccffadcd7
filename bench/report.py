"""How every bench says what it found: a line per claim, and a JSON file beside the others."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BUILD = Path(__file__).resolve().parents[1] / "build" / "bench"


@dataclass(frozen=True)
class Claim:
    """One figure. `aim`: the most that it may be; None for one that is only told."""

    name: str
    value: float
    unit: str
    aim: float | None = None

    @property
    def holds(self) -> bool:
        return self.aim is None or self.value <= self.aim

    def __str__(self) -> str:
        aim = "" if self.aim is None else f" (aim ≤ {self.aim:g})"
        digits = 2 if abs(self.value) < 10 else 1
        return f"{self.name}: {self.value:.{digits}f} {self.unit}{aim}"


def machine() -> str:
    """What the figures were measured on."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, load {load}"


def conclude(bench: str, method: str, found: dict[str, Any], claims: list[Claim]) -> bool:
    """Print the method and the claims, write build/bench/<bench>.json; True if all aims hold."""
    BUILD.mkdir(parents=True, exist_ok=True)
    told = {"bench": bench, "machine": machine(), **found, "claims": [asdict(claim) for claim in claims]}
    (BUILD / f"{bench}.json").write_text(json.dumps(told, indent=1) + "\n")
    print(f"\n{method}\n{told['machine']}.\n")
    for claim in claims:
        print(claim)
    return all(claim.holds for claim in claims)
