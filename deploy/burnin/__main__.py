"""`python -m deploy.burnin --minutes 10 --seed 7`: a campaign; exit code 0 only if nothing came of all the faults."""

from __future__ import annotations

import argparse
import os
import random
import sys

from deploy.burnin.campaign import run
from deploy.guests.command import BuildError
from deploy.laptop import StackError

NAME = "vdcburnin"


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="burnin", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long faults happen (10)")
    parser.add_argument("--seed", type=int, help="which campaign; a fresh one if not said")
    parser.add_argument("--name", default=NAME, help=f"of the stack that the campaign makes and removes ({NAME})")
    chosen = parser.parse_args(words)
    if not 0.1 <= chosen.minutes <= 24 * 60:
        parser.error(f"--minutes is {chosen.minutes:g}; a campaign lasts from 0.1 to {24 * 60} minutes.")
    return chosen


def main(words: list[str] | None = None) -> int:
    chosen = parse(sys.argv[1:] if words is None else words)
    seed = random.SystemRandom().randrange(1, 100_000) if chosen.seed is None else chosen.seed
    try:
        print(f"burnin seed {seed}: {chosen.minutes:g} min on the stack {chosen.name!r}", flush=True)
        result = run(chosen.name, minutes=chosen.minutes, seed=seed, keep=os.environ.get("KEEP") == "1")
    except (StackError, BuildError) as exc:
        print(f"burnin: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("burnin: interrupted", file=sys.stderr)
        return 130
    if result.failure:
        again = f"{sys.executable} manage.py burnin --seed {seed} --minutes {chosen.minutes:g}"
        print(f"{result.failure}\nReport: {result.path}\nAgain: {again}")
    print(result.closing_line)
    return 0 if result.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
