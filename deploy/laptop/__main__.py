"""`python -m deploy.laptop up|down|clean|status`; the stack's name comes from VDC_NAME."""

from __future__ import annotations

import argparse
import os
import sys

from deploy.laptop import StackError, clean, down, up
from deploy.laptop.claim import owned
from deploy.laptop.health import table
from deploy.laptop.stack import Stack
from deploy.laptop.starting import INFRASTRUCTURE_ONLY
from deploy.laptop.supervision import Supervisor


def status(name: str) -> bool:
    """Prints the table; False when something that runs is not healthy, or nothing runs."""
    stack = Stack(name)
    content = owned(stack)
    if content is None or not Supervisor(stack).is_alive():
        print(f"{name!r} is not up.")
        return False
    lines, healthy = table(stack, content)
    print("\n".join(lines))
    return healthy


def wished_port() -> int | None:
    wish = os.environ.get("VDC_PORT", "")
    if not wish:
        return None
    if not wish.isdecimal() or not 0 < int(wish) < 65535:
        raise StackError(f"VDC_PORT is {wish!r}; a port is a number from 1 to 65534.")
    return int(wish)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.laptop", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("up", help="start the stack, or what of it does not run")
    starting.add_argument("--only", choices=[INFRASTRUCTURE_ONLY], help="PostgreSQL, Redis and libvirt alone")
    commands.add_parser("down", help="end all of it, keep the data")
    commands.add_parser("clean", help="end all of it and remove the data")
    commands.add_parser("status", help="what runs, and how it does")
    chosen = parser.parse_args()
    name = os.environ.get("VDC_NAME") or "vdc"
    try:
        match chosen.command:
            case "up":
                up(name, only=chosen.only, port=wished_port())
                return 0 if status(name) else 1
            case "down":
                down(name)
            case "clean":
                clean(name)
            case "status":
                return 0 if status(name) else 1
    except StackError as exc:
        print(f"vdc: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("vdc: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
