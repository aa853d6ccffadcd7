"""Carries out the deeds of a schedule through the HTTP API, and remembers everything that was accepted."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from deploy.burnin.door import Door, Refused, Unanswered
from deploy.burnin.schedule import Deed

MEMORY_MIB = {"kvm": 160, "lxc": 64, "fake": 64}
FITS = {
    "running": ("poweroff", "terminate"),
    "halted": ("poweron", "terminate"),
    "error": ("retry", "terminate"),
}
FORCED_BELOW = 0.4  # of the draw of a power-off; the others give the guest some seconds
LONGEST_GRACE_S = 8
FROM_IMPORT_ABOVE = 0.85  # of the draw of a launch


@dataclass(frozen=True)
class Asked:
    """An operation that a 202 promised."""

    at: float  # Unix time
    verb: str
    subject: str
    operation: str


@dataclass
class Place:
    """Room for one instance; `hostname` is kept until it is known what became of the launch that used it."""

    name: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    uid: str = ""
    hostname: str = ""
    launches: int = 0

    @property
    def hypervisor(self) -> str:
        return self.name.partition("-")[0]


class Workload:
    """`node`: whose trash is restored. `images`: ids by hypervisor. `imports`: what `POST images` takes, in turn."""

    def __init__(self, door: Door, node: str, images: dict[str, list[str]], imports: list[dict[str, Any]]) -> None:
        self.door = door
        self.node = node
        self.images = images
        self.asked: list[Asked] = []
        self.outcomes: Counter[str] = Counter()  # accepted, cancelled, refused, unanswered, skipped
        self._imports = imports
        self._imported: list[str] = []
        self._places: dict[str, Place] = {}

    def perform(self, deed: Deed) -> None:
        """Ask for it; a door that does not answer or refuses is counted."""
        place = self._places.setdefault(deed.place, Place(deed.place))
        if not place.lock.acquire(blocking=False):
            self.outcomes["skipped"] += 1  # an earlier request of this place still waits for its answer
            return
        try:
            match deed.place:
                case "import":
                    self._import()
                case "restore":
                    self._restore(deed)
                case _:
                    self._do(place, deed)
        except Unanswered:
            self.outcomes["unanswered"] += 1
        except Refused:
            self.outcomes["refused"] += 1
        finally:
            place.lock.release()

    def _do(self, place: Place, deed: Deed) -> None:
        if not place.uid:
            self._launch(place, deed)
            return
        instance = self.door.get(f"instances/{place.uid}")
        if instance["state"] == "terminated":
            place.uid = place.hostname = ""
            self._launch(place, deed)
        elif instance["operation"]:
            self._break_off(instance, deed)
        else:
            fitting = FITS.get(instance["state"], ())
            self._first_possible(instance["id"], [verb for verb in deed.wishes if verb in fitting], deed)

    def _launch(self, place: Place, deed: Deed) -> None:
        if not place.hostname:
            place.launches += 1
            place.hostname = f"{place.name}-{place.launches}"
        wish = {
            "image": self._image(place, deed),
            "hostname": place.hostname,
            "memory_mib": MEMORY_MIB[place.hypervisor],
        }
        try:
            document = self.door.post("instances", wish)
        except Refused as refused:
            if refused.code == "hostname_taken":  # an earlier request was taken though nobody said so
                place.uid = self._named(place.hostname)
            raise
        place.uid = document["id"]
        self._accepted("launch", document)

    def _image(self, place: Place, deed: Deed) -> str:
        if place.hypervisor == "lxc" and self._imported and deed.draw > FROM_IMPORT_ABOVE:
            return self._imported[-1]
        known = self.images[place.hypervisor]
        return known[int(deed.draw * len(known))]

    def _named(self, hostname: str) -> str:
        found = self.door.get("instances", limit=200)["items"]
        live = (row for row in found if row["hostname"] == hostname and row["state"] != "terminated")
        return next((row["id"] for row in live), "")

    def _break_off(self, instance: dict[str, Any], deed: Deed) -> None:
        match deed.broken_off:
            case "cancel":
                self.door.post(f"operations/{instance['operation']}/cancel")
                self.outcomes["cancelled"] += 1
            case "terminate":
                self._verb(instance["id"], "terminate")
            case "poweroff":
                self._verb(instance["id"], "poweroff", force=True)
            case _:
                self.outcomes["skipped"] += 1

    def _first_possible(self, uid: str, verbs: list[str], deed: Deed) -> None:
        for verb in verbs:
            try:
                self._verb(uid, verb, **(_poweroff_wish(deed) if verb == "poweroff" else {}))
                return
            except Refused as refused:
                if refused.code not in ("not_found", "wrong_state") or verb == verbs[-1]:
                    raise

    def _verb(self, uid: str, verb: str, **body: Any) -> None:
        self._accepted(verb, self.door.post(f"instances/{uid}/{verb}", body))

    def _import(self) -> None:
        if not self._imports:
            self.outcomes["skipped"] += 1
            return
        document = self.door.post("images", self._imports.pop())
        self._imported.append(document["id"])
        self._accepted("import", document)

    def _restore(self, deed: Deed) -> None:
        entries = self.door.get(f"nodes/{self.node}/trash")["items"]
        if not entries:
            self.outcomes["skipped"] += 1
            return
        entry = entries[int(deed.draw * len(entries))]["id"]
        self._accepted("restore", self.door.post(f"nodes/{self.node}/trash/{entry}/restore"))

    def _accepted(self, verb: str, document: dict[str, Any]) -> None:
        self.asked.append(Asked(time.time(), verb, document["id"], document["operation"]["id"]))
        self.outcomes["accepted"] += 1


def _poweroff_wish(deed: Deed) -> dict[str, Any]:
    return {"force": True} if deed.draw < FORCED_BELOW else {"timeout_s": 1 + int(deed.draw * LONGEST_GRACE_S)}
