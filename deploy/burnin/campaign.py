"""One campaign from its first directory to its last word."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psycopg2

from deploy.burnin import report
from deploy.burnin.disposable import make_disposable
from deploy.burnin.door import Door, Refused, Unanswered, open_door
from deploy.burnin.faults import Faults
from deploy.burnin.proxy import Proxy
from deploy.burnin.record import Record
from deploy.burnin.schedule import Deed, Fault, Schedule, draw_up
from deploy.burnin.verdict import Verdict, judge
from deploy.burnin.volume_disk import VolumeDisk, mounted
from deploy.burnin.workload import Workload
from deploy.guests.build import build_images
from deploy.laptop import Stack, cgroups, clean, up
from deploy.laptop.namespaces import directory as namespaces_of
from deploy.laptop.stack import CLONE
from deploy.laptop.starting import INFRASTRUCTURE_ONLY
from deploy.stages import stage

TIME_SCALE = 0.5  # of leases, rings and heartbeats: many of them fit into one campaign
SETTLED_WITHIN_S = 60.0
CLEAN_WITHIN_S = 60.0  # of the end: what nodes tend once a minute has been tended
LOOK_EVERY_S = 0.25
PROGRESS_EVERY_S = 5.0
ASKING_AT_ONCE = 12
FAULTS_AT_ONCE = 24
FAKE_NODES = 10
FRESH_IMAGES_PER_MINUTE = {"lxc": 1.0, "kvm": 0.5}
GUESTS = CLONE / "build" / "guests"
OPEN = "SELECT count(*) AS number FROM operations_operation WHERE ended_at IS NULL"
LIVE = "SELECT uid FROM instances_instance WHERE state <> 'terminated'"


@dataclass(frozen=True)
class Result:
    """How a campaign ended. `path`: of its report."""

    is_good: bool
    closing_line: str
    failure: str
    path: str


def run(name: str, *, minutes: float, seed: int, keep: bool = False) -> Result:
    """A campaign on a stack of its own, which is removed in the end unless it failed and `keep` is set.

    Raises StackError when the name is not for campaigns, or the stack cannot start.
    """
    stack = Stack(name)
    make_disposable(stack, time_scale=TIME_SCALE, fake_nodes=FAKE_NODES)
    result = None
    try:
        up(name, only=INFRASTRUCTURE_ONLY)
        with mounted(stack) as disk:
            content = up(name)
            result = _campaign(stack, content, disk, draw_up(seed, minutes * 60))
    finally:
        if keep and (result is None or not result.is_good):
            print(f"The stack {name!r} is kept; `VDC_NAME={name} make clean` removes it.", flush=True)
        else:
            clean(name)
    return result


def _campaign(stack: Stack, content: dict[str, Any], disk: VolumeDisk, schedule: Schedule) -> Result:
    record, door = Record(content), open_door(stack, content)
    with _proxy(content) as proxy:
        manifest = {facts["hypervisor"]: facts for facts in build_images(GUESTS, print)["images"]}
        node = next(row["id"] for row in door.get("nodes", limit=200)["items"] if "kvm" in row["hypervisors"])
        workload = Workload(door, node, _register(door, manifest, schedule), _imports(proxy, manifest, schedule))
        record.rows("UPDATE hypervisor_node SET files_url = %s WHERE uid = %s", proxy.url, node)
        stop = threading.Event()
        faults = Faults(stack, content, proxy, disk, stop)
        _play(schedule, workload, faults, stop)
        cgroups.wake(stack)
        settled_after_s = _settle(record, max((entry.ended_at for entry in faults.happened), default=time.time()))
        findings = _audit_until_clean(stack)
        verdict = judge(
            record, workload.asked, proxy.downloads, images=disk.path / "images", storage=stack.state_dir / "storage"
        )
        verdict.take_findings(findings, "at rest")
        stories = _stories(door, verdict)
        if settled_after_s is not None:
            _end_everything(stack, record, door, verdict)
    door.close()
    rest = {
        "asked": [asdict(asked) for asked in workload.asked],
        "outcomes": dict(workload.outcomes),
        "missed": [f"{fault}: {why}" for fault, why in faults.missed],
        "settled_after_s": settled_after_s,
        "time_scale": TIME_SCALE,
        "downloads": [asdict(download) for download in proxy.downloads],
    }
    path = report.write(schedule, verdict, faults.happened, rest, stories)
    return Result(
        is_good=verdict.is_good(),
        closing_line=report.closing_line(schedule, verdict, faults.happened, settled_after_s, TIME_SCALE),
        failure="" if verdict.is_good() else report.failure(schedule, verdict, faults.happened, stories),
        path=str(path),
    )


# --- before ----------------------------------------------------------------------------------------------------------


@contextmanager
def _proxy(content: dict[str, Any]) -> Iterator[Proxy]:
    with Proxy(f"http://127.0.0.1:{content['files_port']}", {}) as proxy:
        yield proxy


def _variant(facts: dict[str, Any], mark: int) -> bytes:
    """The guest image with another time in its gzip header: other stored bytes, so no store has it yet."""
    content = bytearray((GUESTS / facts["file"]).read_bytes())
    content[4:8] = mark.to_bytes(4, "little")
    return bytes(content)


def _traits(facts: dict[str, Any]) -> dict[str, Any]:
    return {"name": facts["name"], **{key: facts[key] for key in ("arch", "hypervisor", "init", "root_device")}}


def _register(door: Door, manifest: dict[str, dict[str, Any]], schedule: Schedule) -> dict[str, list[str]]:
    """Images by hypervisor. The first launch of each has to fetch it."""
    images: dict[str, list[str]] = {}
    with stage("images", "upload the guest images under several digests"):
        for hypervisor, facts in manifest.items():
            number = 1 + round(FRESH_IMAGES_PER_MINUTE[hypervisor] * schedule.length_s / 60)
            images[hypervisor] = [_upload(door, facts, mark) for mark in range(1, 1 + number)]
        images["fake"] = [_upload(door, manifest["lxc"] | {"hypervisor": "fake"}, 0)]
    return images


def _upload(door: Door, facts: dict[str, Any], mark: int) -> str:
    stored = door.post("backup-objects", {"format": "gz"})["id"]
    door.ask("PUT", f"backup-objects/{stored}/content", content=_variant(facts, mark), timeout=120)
    return door.post("images", {"backup_object": stored, **_traits(facts)})["id"]


def _imports(proxy: Proxy, manifest: dict[str, dict[str, Any]], schedule: Schedule) -> list[dict[str, Any]]:
    """One import for each deed that wants one, each of other bytes."""
    facts = manifest["lxc"]
    wishes = []
    for number in range(sum(deed.place == "import" for deed in schedule.deeds)):
        proxy.imports[f"{number}.raw.gz"] = _variant(facts, 1_000_000 + number)
        wishes.append({**_traits(facts), "url": proxy.import_url(f"{number}.raw.gz"), "format": "gz"})
    return wishes


# --- while it burns --------------------------------------------------------------------------------------------------


def _play(schedule: Schedule, workload: Workload, faults: Faults, stop: threading.Event) -> None:
    """Everything at its time. Returns when the last request and the last fault are over."""
    moments: list[Deed | Fault] = sorted([*schedule.deeds, *schedule.faults], key=lambda moment: moment.at_s)
    began = time.monotonic()
    shown_at = 0.0
    asking, breaking = ThreadPoolExecutor(ASKING_AT_ONCE), ThreadPoolExecutor(FAULTS_AT_ONCE)
    try:
        for moment in moments:
            while (left_s := began + moment.at_s - time.monotonic()) > 0:
                time.sleep(min(left_s, 1.0))
                if time.monotonic() - shown_at > PROGRESS_EVERY_S:
                    shown_at = time.monotonic()
                    print(_progress(shown_at - began, workload, faults), flush=True)
            if isinstance(moment, Fault):
                breaking.submit(faults.perform, moment)
            else:
                asking.submit(workload.perform, moment)
        time.sleep(max(0.0, began + schedule.length_s - time.monotonic()))
    finally:
        stop.set()
        breaking.shutdown(cancel_futures=True)
        asking.shutdown(cancel_futures=True)


def _progress(at_s: float, workload: Workload, faults: Faults) -> str:
    outcomes = ", ".join(f"{count} {word}" for word, count in sorted(workload.outcomes.items()))
    now = "; ".join(sorted(+faults.now)) or "none"
    return f"  {at_s:5.0f} s  asked: {outcomes or 'nothing'}  faults: {len(faults.happened)}, now: {now}"


# --- after -----------------------------------------------------------------------------------------------------------


def _settle(record: Record, since: float) -> float | None:
    """Seconds from the last fault's end until every operation had ended; None: some never did in the time allowed."""
    with stage("settle", "wait until every operation has ended"):
        while time.time() < since + SETTLED_WITHIN_S:
            try:
                if record.rows(OPEN)[0]["number"] == 0:
                    return time.time() - since
            except psycopg2.Error:
                pass  # it was killed a moment ago and still recovers
            time.sleep(LOOK_EVERY_S)
    return None


def _audit_until_clean(stack: Stack) -> list[dict[str, str]]:
    """What has no owner and keeps having none."""
    with stage("audit", "compare the record with the machine"):
        deadline = time.monotonic() + CLEAN_WITHIN_S
        while (findings := audit(stack)) and time.monotonic() < deadline:
            time.sleep(2)
    return findings


def audit(stack: Stack) -> list[dict[str, str]]:
    """`deploy.burnin.audit`: the node in the stack's mount namespace, its fake nodes where they live, outside."""
    inside = ["nsenter", f"--mount={namespaces_of(stack) / 'mnt'}", f"--wdns={CLONE}", "--"]
    return [*_audited(stack, "node", inside), *_audited(stack, "fleet", [])]


def _audited(stack: Stack, part: str, inside: list[str]) -> list[dict[str, str]]:
    done = subprocess.run(
        [*inside, sys.executable, "-m", "deploy.burnin.audit", part],
        cwd=CLONE,
        env=stack.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["it said nothing"]
        return [{"what": "audit", "name": part, "why": f"could not be finished: {words[-1]}"}]
    return json.loads(done.stdout.strip().splitlines()[-1])


def _stories(door: Door, verdict: Verdict) -> dict[str, Any]:
    stories = {}
    for uid in dict.fromkeys(verdict.offenders):
        try:
            stories[uid] = door.get(f"operations/{uid}")
        except (Unanswered, Refused) as exc:
            stories[uid] = {"events": [], "unknown": str(exc)}
    return stories


def _end_everything(stack: Stack, record: Record, door: Door, verdict: Verdict) -> None:
    """Terminate all that is left: nothing may stay behind on the node."""
    with stage("terminate", "end every instance"):
        for row in record.insist(LIVE):
            try:
                door.post(f"instances/{row['uid']}/terminate")
            except (Unanswered, Refused) as exc:
                verdict.untrue.append(f"{row['uid']} could not be terminated at rest: {exc}")
    if _settle(record, time.time()) is None:
        verdict.hanging.append("a terminate at rest did not end")
    left = [row["uid"] for row in record.insist(LIVE)]
    verdict.untrue += [f"{uid} was terminated at rest and is not" for uid in left]
    verdict.take_findings(_audit_until_clean(stack), "after all was terminated")
