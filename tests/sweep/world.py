"""A data center for the sweep: one node with real worker processes, rows, and subjects in whatever state a verb needs.

birth (a factory per noun) ──verb──► state ──verb──► … ──► the state that the verb under test begins from
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervisor import local, receipts, rooms
from hypervisor.image_store import ImageStore
from hypervisor.models import Node, Stray
from hypervisor.trash import Trash
from instances import adoption, stray_watch
from instances import services as instances
from networks import leases
from operations import engine, register
from operations.models import Operation
from operations.register import Verb
from operations.states import OperationState
from tests import datacenter
from tests.invariants import files, guests, rows
from tests.sweep import failpoints
from tests.sweep.added_verbs import Parcel
from tests.sweep.failpoints import Failpoint
from volumes import services as volumes
from volumes.models import BackupObject, Image, Volume

PROJECT = Path(__file__).resolve().parent.parent.parent
TIME_SCALE = 0.1
PATIENCE_S = 120
LOOK_S = 0.01
MOMENT_S = 5
RAW_BYTES = 3 << 20
FAILED = "failed"


@dataclass(frozen=True)
class Birth:
    """How a subject comes into the world: the verb that its first operation does, and what begins it."""

    verb: str
    begin: Callable[[World], tuple[Any, Operation]]


def _launch(world: World) -> tuple[Any, Operation]:
    return instances.launch_instance(world.account, image=world.image, requested_by="the sweep")


def _import(world: World) -> tuple[Any, Operation]:
    return volumes.import_image(
        world.account,
        url=f"file://{world.packed}",
        format="gz",
        sha256="",
        name="imported",
        requested_by="the sweep",
        is_operator=True,
        hypervisor="lxc",
    )


def _packing(verb: str) -> Callable[[World], tuple[Any, Operation]]:
    def begin(world: World) -> tuple[Any, Operation]:
        parcel = Parcel.objects.create(
            account=world.account, backup_object=world.image.backup_object, name="parcel", hypervisor="lxc"
        )
        return parcel, world.ask(register.nouns["parcel"].verbs[verb], parcel)

    return begin


# A noun whose first operation is begun by a service of its own needs a line here; several verbs may give birth.
BIRTHS: dict[str, list[Birth]] = {
    "instance": [Birth("launch", _launch)],
    "image": [Birth("import", _import)],
    "parcel": [Birth(verb, _packing(verb)) for verb in ("pack", "pack_once", "pack_each_time", "pack_for_good")],
}


def _discarded_volume(world: World) -> Volume:
    instance, operation = _launch(world)
    world.ended(operation, "a launch")
    world.bury(instance)
    return instance.attachments.get().volume


def _lost_guest(world: World) -> Stray:
    """The record forgets an instance and all that it had; its guest runs on."""
    instance, operation = _launch(world)
    world.ended(operation, "a launch")
    instance.refresh_from_db()
    volume = instance.attachments.get().volume
    for vif in instance.vifs.all():
        leases.release(holder=vif.uid)
    instance.vifs.all().delete()
    instance.attachments.all().delete()
    room = {"vcpus": instance.vcpus, "memory_mib": instance.memory_mib, "disk_bytes": volume.size_bytes}
    rooms.give_back(instance.node, **room)
    uid, node = instance.uid, instance.node
    volume.delete()
    instance.delete()
    stray_watch.seen(node, uid)
    return Stray.objects.get(name=uid)


# A noun that comes into the world beside another one: what makes a row of it, in a settled state.
BESIDE: dict[str, Callable[[World], Any]] = {"volume": _discarded_volume, "stray": _lost_guest}


def _entry(volume: Volume) -> dict[str, Any]:
    entries = Trash(local.node_dir() / "trash", local.node_dir() / "volumes").entries()
    return {"entry": next(entry.name for entry in entries if entry.uid == volume.uid)}


# A verb that cannot begin without parameters: where they come from.
PARAMS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "volume.restore": _entry,
    "stray.adopt": lambda stray: {"account": datacenter.account().uid, "image": adoption.image_of(stray).uid},
    "stray.quarantine": lambda stray: {"owner": datacenter.account().uid, "reason": "the sweep"},
}


class World:
    """`start` starts the workers; everything else speaks to the database and the files only."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.armed = scratch / "armed"
        self.packed = scratch / "image.gz"
        self.log = scratch / "processes.log"
        self._process: subprocess.Popen | None = None
        self._points = 0
        self.told: set[str] = set()  # what was found wrong already: each thing fails one test
        self.plans: dict[str, dict[int, str]] = {}  # the tasks of each verb's steps, as seen in a run of it

    # --- rows and processes ------------------------------------------------------------------------------------

    def build(self) -> None:
        """Rows and files of an empty data center with one image."""
        self.armed.mkdir()
        self.node: Node = datacenter.node("tests")
        Node.objects.filter(pk=self.node.pk).update(hypervisors=["lxc"], files_url=f"file://{self.scratch}/state")
        datacenter.network()
        self.account = datacenter.account()
        content = random.Random(1).randbytes(RAW_BYTES // 2) + bytes(RAW_BYTES // 2)
        self.packed.write_bytes(gzip.compress(content, compresslevel=1, mtime=0))
        self.image = datacenter.image(self.node, raw_size_bytes=RAW_BYTES)
        stored = self.image.backup_object
        Image.objects.filter(pk=self.image.pk).update(hypervisor="lxc")
        self.image.refresh_from_db()
        BackupObject.objects.filter(pk=stored.pk).update(
            format="gz",
            size_bytes=self.packed.stat().st_size,
            sha256=hashlib.sha256(self.packed.read_bytes()).hexdigest(),
        )
        stored.refresh_from_db()
        self._store(stored)

    def _store(self, stored: BackupObject) -> None:
        local.storage_dir().mkdir(parents=True)
        artefact = local.storage_dir() / stored.uid
        temporary = receipts.temporary_path(artefact, "upload")
        shutil.copyfile(self.packed, temporary)
        facts = {"sha256": stored.sha256, "raw_size_bytes": RAW_BYTES}
        receipts.commit(temporary, artefact, operation="upload", facts=facts)

    def start(self, stack: dict[str, Any]) -> None:
        """The node's processes, the sweep and the control worker; they end with this process."""
        stack_file = self.scratch / "stack.json"
        stack_file.write_text(json.dumps(stack))
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.sweep.node_processes", str(self.armed)],
                cwd=PROJECT,
                env={**os.environ, "VDC_STACK_FILE": str(stack_file), "VDC_PROCESS": "worker"},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait_for(lambda: Node.objects.get(pk=self.node.pk).start_id, "the node to start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()  # the others follow it
            self._process.wait()

    def wait_for(self, happened: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError(f"waited in vain for {what}\n{self.last_words()}")
            time.sleep(LOOK_S)

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])

    # --- operations --------------------------------------------------------------------------------------------

    def ask(self, verb: Verb, subject: Any) -> Operation:
        subject.refresh_from_db()
        params = PARAMS.get(verb.full_name, lambda subject: {})(subject)
        return engine.begin(verb, subject, requested_by="the sweep", params=params)

    def ended(self, operation: Operation, what: str) -> str:
        """The state that it ended in."""

        def is_over() -> bool:
            operation.refresh_from_db()
            return operation.ended_at is not None

        self.wait_for(is_over, f"the end of {operation.uid} ({what})")
        return operation.state

    def arm(self, position: int, moment: str, action: str, **rest: Any) -> Failpoint:
        """A failpoint for operations that begin from now on."""
        self._points += 1
        newest = Operation.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        point = Failpoint(f"{self._points:05d}", position, moment, action, newer_than=newest, **rest)
        failpoints.arm(self.armed, point)
        return point

    def missed(self, points: list[Failpoint]) -> list[Failpoint]:
        """Those by which nobody came. What follows a COMMIT happens a moment after others have seen it."""
        deadline = time.monotonic() + MOMENT_S
        while missed := [point for point in points if not failpoints.is_reached(self.armed, point)]:
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK_S)
        return missed

    def places(self, point: Failpoint) -> list[str]:
        return failpoints.places(self.armed, point)

    def disarm(self) -> None:
        failpoints.disarm(self.armed)

    # --- subjects ----------------------------------------------------------------------------------------------

    def ready(self, verb: Verb, frm: str | None = None) -> Any:
        """A new subject in a state from which `verb` begins; the shortest way there is found in the verb table."""
        wanted = {frm} if frm else verb.frm
        subject = BESIDE[verb.noun](self) if verb.noun in BESIDE else None
        way = self._way(verb.noun, wanted, subject and subject.state)
        if way is None:
            raise AssertionError(
                f"no way leads a new {verb.noun} to {' or '.join(sorted(wanted))}, where {verb.full_name} begins; "
                f"add its birth to BIRTHS in tests/sweep/world.py, or to BESIDE if it comes with another noun"
            )
        for name, outcome in way:
            subject = self._go(name, outcome, subject)
        subject.refresh_from_db()
        assert subject.state in wanted, f"{subject.uid} is {subject.state} after {way}"
        return subject

    def _go(self, name: str, outcome: str, subject: Any) -> Any:
        """Take one step of a way; a failure on it is made by a failpoint."""
        point = self.arm(1, "before", "permanent") if outcome == FAILED else None
        subject, operation = self.do(name, subject)
        state = self.ended(operation, name)
        assert state == outcome, f"{name} of {subject.uid} is {state}: {operation.error}\n{self.last_words()}"
        if point:
            self.disarm()
        return subject

    def do(self, name: str, subject: Any) -> tuple[Any, Operation]:
        """Begin the verb `name` ("instance.launch"); without a subject it gives birth to one."""
        verb = register.verb_named(name)
        if subject is not None:
            return subject, self.ask(verb, subject)
        return next(birth for birth in BIRTHS[verb.noun] if birth.verb == verb.name).begin(self)

    def gives_birth(self, verb: Verb) -> bool:
        return any(birth.verb == verb.name for birth in BIRTHS.get(verb.noun, []))

    def _way(self, noun: str, wanted: Collection[str], begins: str | None) -> list[tuple[str, str]] | None:
        """The shortest way of (verb, outcome) to one of these states, from a birth or from the state `begins`."""
        verbs = register.nouns[noun].verbs
        queue = deque([(begins, [])] if begins else [])
        for outcome in (OperationState.DONE, FAILED):
            for birth in BIRTHS.get(noun, [])[:1]:
                queue.append((_leads_to(verbs[birth.verb], outcome), [(f"{noun}.{birth.verb}", str(outcome))]))
        seen = set()
        while queue:
            state, way = queue.popleft()
            if state in wanted:
                return way
            if state in seen:
                continue
            seen.add(state)
            for outcome in (OperationState.DONE, FAILED):
                for verb in verbs.values():
                    if state in verb.frm and not verb.resumes:
                        queue.append((_leads_to(verb, outcome), [*way, (verb.full_name, str(outcome))]))
        return None

    def bury(self, subject: Any) -> None:
        """Lead a subject to its end, where there is one, so that what is left of it is left by mistake."""
        subject = type(subject).objects.filter(pk=subject.pk).first()
        if subject is None:  # the node sees it no more
            return
        for verb in register.nouns[subject.KIND].verbs.values():
            if verb.to in files.ENDED_STATES and subject.state in verb.frm:
                operation = self.ask(verb, subject)
                state = self.ended(operation, verb.full_name)
                assert state == OperationState.DONE, f"{verb.full_name} of {subject.uid} is {state}: {operation.error}"
                return

    # --- at rest -----------------------------------------------------------------------------------------------

    def forget_images(self) -> None:
        """The next launch fetches its image anew."""
        for path in (local.node_dir() / "images").glob("*.raw*"):
            path.unlink()

    def violations(self) -> list[str]:
        """What is wrong since the last look, once the node has done what its bulk lane does every ten minutes."""
        ImageStore(local.node_dir() / "images").remove_abandoned_parts()
        Trash(local.node_dir() / "trash", local.node_dir() / "volumes").empty()
        wrong = [*rows.violations(), *files.violations(), *guests.violations()]
        new = [sentence for sentence in wrong if sentence not in self.told]
        self.told.update(new)
        return new


def _leads_to(verb: Verb, outcome: str) -> str:
    return verb.to if outcome == OperationState.DONE else verb.failed_to
