"""What must be true of the guests of a node at rest: one for each instance that runs, none without an instance."""

from __future__ import annotations

from collections.abc import Iterator

from hypervisor import local
from hypervisor.contract import Observed
from instances.models import Instance
from tests.invariants import files


def violations() -> Iterator[str]:
    node = local.this_node()
    rows = {row.uid: row for row in Instance.objects.live().filter(node=node)}
    for hypervisor in node.hypervisors:
        looks = local.driver(hypervisor).observe_all()
        seen = {look.uid: look.state for look in looks}
        if len(seen) != len(looks):
            yield f"{hypervisor} shows a guest twice: {sorted(look.uid for look in looks)}"
        strays = {stray.name for stray in files.strays()}
        for uid in sorted(seen.keys() - rows.keys() - strays):
            if seen[uid] is not Observed.ABSENT:
                yield f"{hypervisor} has the guest {uid}, which is {seen[uid]} and belongs to no live instance"
        for uid, row in rows.items():
            runs = seen.get(uid) in (Observed.RUNNING, Observed.PAUSED)
            if row.hypervisor == hypervisor and row.state in ("running", "halted") and runs != (row.state == "running"):
                yield f"{uid} is {row.state}, and {hypervisor} sees it {seen.get(uid, Observed.ABSENT)}"
