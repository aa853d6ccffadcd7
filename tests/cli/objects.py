"""API objects as the tests need them."""

from __future__ import annotations

from typing import Any

SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
GIB = 1024**3


def step(position: int, task: str, state: str = "done", **changes: Any) -> dict[str, Any]:
    return {
        "position": position,
        "task": task,
        "node": "hn-3f7h2k9s",
        "lane": "bulk",
        "state": state,
        "attempt": 1,
        "attempts": [],
        "progress": None,
        "started_at": None,
        "ended_at": None,
        "commands": [],
        "result": {},
        "error": None,
    } | changes


def operation(state: str = "done", **changes: Any) -> dict[str, Any]:
    return {
        "id": "op-7k2m9x4q",
        "verb": "instance.launch",
        "state": state,
        "subject": {"kind": "instance", "id": "i-7d2kq9xw"},
        "subjects": [{"kind": "instance", "id": "i-7d2kq9xw"}, {"kind": "volume", "id": "vol-k2x8m4n1"}],
        "requested_by": "admin",
        "created_at": "2026-03-01T13:02:11.000Z",
        "started_at": "2026-03-01T13:02:11.120Z",
        "ended_at": "2026-03-01T13:02:40.000Z" if state in {"done", "failed", "cancelled"} else None,
        "waiting_for": None,
        "error": None,
        "undone": [],
        "held": [],
        "steps": [],
        "events": [],
        "allowed_verbs": [],
    } | changes


def instance(state: str = "running", **changes: Any) -> dict[str, Any]:
    return {
        "id": "i-7d2kq9xw",
        "name": "web",
        "hostname": "web-1",
        "state": state,
        "wanted": "running",
        "observed": {"state": "running", "reason": "booted", "at": "2026-03-01T13:02:39.000Z"},
        "error": None,
        "image": "wmi-demolxc1",
        "node": "hn-3f7h2k9s",
        "hypervisor": "lxc",
        "vcpus": 1,
        "memory_mib": 256,
        "addresses": ["10.77.0.12"],
        "vifs": [{"id": "vif-a1b2c3d4", "network": "nw-default1", "mac": "52:54:00:12:34:56", "ipv4": "10.77.0.12"}],
        "volumes": [{"id": "vol-k2x8m4n1", "boot": True, "size_bytes": 2 * GIB, "state": "attached"}],
        "ssh_keys": ["ssh-5m2p8q1r"],
        "account": "a-shpoolxx",
        "created_at": "2026-03-01T13:02:11.000Z",
        "operation": None,
        "allowed_verbs": ["poweroff", "terminate"],
    } | changes


def failed_launch() -> dict[str, Any]:
    """The story that was never told: a copy lost with its worker, done again, and then a full disk."""
    fetch = step(
        1,
        "volumes.fetch_image",
        attempt=2,
        attempts=[
            {
                "number": 1,
                "started_at": "2026-03-01T13:02:11.120Z",
                "ended_at": "2026-03-01T13:02:20.000Z",
                "outcome": "lost",
                "error": "the worker went away in the middle of the step",
                "worker": "bulk@demo.4711",
            },
            {
                "number": 2,
                "started_at": "2026-03-01T13:02:20.500Z",
                "ended_at": "2026-03-01T13:02:39.000Z",
                "outcome": "done",
                "error": None,
                "worker": "bulk@demo.4802",
            },
        ],
        progress={"done": 4 * GIB, "total": 4 * GIB, "unit": "bytes"},
        started_at="2026-03-01T13:02:11.120Z",
        ended_at="2026-03-01T13:02:39.000Z",
        result={"size_bytes": 4 * GIB, "sha256": SHA256},
    )
    fault = {
        "class": "Permanent",
        "message": "the disk of node hn-3f7h2k9s is full: 4.0 GiB are needed and 0.3 GiB are free",
        "advice": "free some room on hn-3f7h2k9s, then retry; the fetched image is kept",
        "step": "volumes.build_volume",
        "place": "volume_files.py:123 in build",
    }
    build = step(
        2,
        "volumes.build_volume",
        "failed",
        attempts=[
            {
                "number": 1,
                "started_at": "2026-03-01T13:02:39.050Z",
                "ended_at": "2026-03-01T13:02:39.950Z",
                "outcome": "failed",
                "error": None,
                "worker": "bulk@demo.4802",
            }
        ],
        started_at="2026-03-01T13:02:39.050Z",
        ended_at="2026-03-01T13:02:39.950Z",
        commands=[
            {
                "argv": [
                    "qemu-img",
                    "create",
                    "-f",
                    "qcow2",
                    "-o",
                    "compat=1.1,preallocation=falloc",
                    "/var/lib/vdc/node/volumes/vol-k2x8m4n1.qcow2.1",
                    "4294967296",
                ],
                "exit_code": 1,
                "output_tail": "Formatting 'vol-k2x8m4n1.qcow2.1'\n\x1b[31mqemu-img: No space left on device\x1b[0m\n",
            }
        ],
        error={key: fault[key] for key in ("class", "message", "advice", "place")},
    )
    return operation(
        "failed",
        error=fault,
        undone=["the temporary file vol-k2x8m4n1.qcow2.1 was removed"],
        held=["the image in the store of hn-3f7h2k9s", "the address 10.77.0.12"],
        steps=[
            fetch,
            build,
            step(3, "networks.plug", "cancelled", lane="ops", attempt=0),
            step(4, "instances.start_guest", "blocked", lane="ops", attempt=0),
        ],
        events=[
            {"at": "2026-03-01T13:02:11.004Z", "name": "instance.launch.begun", "message": "asked by admin"},
            {
                "at": "2026-03-01T13:02:20.301Z",
                "name": "step.lost",
                "message": "attempt 1 of volumes.fetch_image gave no sign of life for 30 s and is done again",
            },
            {"at": "2026-03-01T13:02:40.000Z", "name": "instance.launch.failed", "message": ""},
        ],
    )
