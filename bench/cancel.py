"""How long a copy still runs after its operation was cancelled: from the POST until the worker has let go of it.

In a stack of its own (`vdccancel`), which is removed in the end, an image is imported again and again from a slow
HTTP server of this bench, a gzip stream of 256 MiB at 25 MiB/s; somewhere in the middle the import is cancelled.

Run as `python -m bench.cancel`; exit code 0 only if the aim holds.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.report import Claim, conclude
from bench.stack import door_of, operator_login, own_stack
from cli.client import Client
from deploy.laptop import StackError

STACK = "vdccancel"
ROUNDS = 25
PIECE = bytes(range(256)) * 4096  # 1 MiB, stored as it is in the stream
PIECES = 256
PAUSE_S = 0.04
LOOK_EVERY_S = 0.05
PATIENCE_S = 120
AIM_STOPPED_S = 1.0

METHOD = f"""\
Cancel of an import of 256 MiB of gzip at no more than {1 / PAUSE_S:.0f} MiB/s, {ROUNDS} times, in a stack of its own.
Stopped: from before the POST until the copying attempt was written as ended, by the API's own time.
Undone: until the operation was `cancelled`, with nothing of the copy left in the backup storage."""


class Slow(BaseHTTPRequestHandler):
    """Answers every GET with the same slow stream, for as long as somebody listens."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        packer = zlib.compressobj(0, wbits=31)
        try:
            for _ in range(PIECES):
                self.wfile.write(packer.compress(PIECE))
                time.sleep(PAUSE_S)
            self.wfile.write(packer.flush())
        except ConnectionError:
            return  # that is what a cancel looks like from here

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def slow_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/disk.gz"
        finally:
            server.shutdown()


def one_round(door: Client, url: str) -> dict[str, float]:
    """Seconds until the copy had stopped, and until the operation had ended."""
    asked = {"name": "slow", "url": url, "format": "gz", "hypervisor": "lxc", "init": "busybox"}
    operation = door.post("images", asked)["operation"]["id"]
    _until(door, operation, lambda story: ((story["steps"][0]["progress"] or {}).get("done") or 0) > len(PIECE))
    time.sleep(random.uniform(0, 1))  # noqa: S311 - anywhere between two looks of the worker
    asked_at = time.time()
    door.post(f"operations/{operation}/cancel", {})
    story = _until(door, operation, lambda story: story["ended_at"])
    [copying] = [attempt for attempt in story["steps"][0]["attempts"] if attempt["outcome"] == "cancelled"]
    if (story["state"], story["held"]) != ("cancelled", []):
        raise SystemExit(f"{operation} ended as {story['state']}, and holds {story['held']}.")
    return {"stopped": _moment(copying["ended_at"]) - asked_at, "undone": _moment(story["ended_at"]) - asked_at}


def _until(door: Client, operation: str, happened: Any) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while not happened(story := door.get(f"operations/{operation}")):
        if time.monotonic() > deadline:
            raise SystemExit(
                f"{operation} is {story['state']} for {PATIENCE_S} s; it waits for {story['waiting_for']}."
            )
        time.sleep(LOOK_EVERY_S)
    return story


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def main() -> int:
    try:
        with own_stack(STACK) as content, tempfile.TemporaryDirectory() as work, slow_server() as url:
            with door_of(operator_login(content, Path(work))) as door:
                rounds = [one_round(door, url) for _ in range(ROUNDS)]
            parts = list(Path(content["state_dir"]).rglob("*.part"))
    except StackError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 2
    stopped, undone = ([one[name] for one in rounds] for name in ("stopped", "undone"))
    claims = [
        Claim("cancel.copy_stopped_median", statistics.median(stopped), "s", AIM_STOPPED_S),
        Claim("cancel.copy_stopped_most", max(stopped), "s"),
        Claim("cancel.undone_median", statistics.median(undone), "s"),
        Claim("cancel.undone_most", max(undone), "s"),
        Claim("cancel.parts_left", len(parts), "files", 0),
    ]
    return 0 if conclude("cancel", METHOD, {"rounds": rounds}, claims) else 1


if __name__ == "__main__":
    sys.exit(main())
