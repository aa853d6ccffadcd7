"""Everything that operators can do to a stray, as one table."""

from __future__ import annotations

from typing import Any

from hypervisor.models import Stray, StrayKind, StrayState
from instances import adoption, stray_tasks
from operations.plan import Plan, step
from operations.register import Verb

S = StrayState
SPARE_S = 120


def _adopt(stray: Stray, params: dict[str, Any]) -> Plan:
    node = stray.node.uid
    return Plan(
        (
            step(
                stray_tasks.adopt_stray,
                node=node,
                lane="ops",
                params=params,
                moves={stray: S.ADOPTING},
                deadline_s=SPARE_S,
            ),
        )
    )


def _quarantine(stray: Stray, params: dict[str, Any]) -> Plan:
    node, moves = stray.node.uid, {stray: S.QUARANTINING}
    remove = step(stray_tasks.remove_stray, node=node, lane="ops", moves=moves, deadline_s=SPARE_S)
    discard = (
        step(
            stray_tasks.discard_stray_disk,
            node=node,
            lane="ops",
            params={"disk": disk["uid"], **params},
            moves=moves,
            deadline_s=SPARE_S,
        )
        for disk in adoption.disks_of(stray)
    )
    return Plan((remove, *discard) if stray.kind == StrayKind.GUEST else tuple(discard))


def _verb(name: str, to: StrayState, plan: Any, says: str) -> Verb:
    """What did not come to its end leaves a stray: the next look shows what is left of it."""
    return Verb("stray", name, frozenset({S.SEEN}), to, plan, failed_to=S.SEEN, cancelled_to=S.SEEN, says=says)


#                   name          to             plan
ADOPT = _verb("adopt", S.ADOPTED, _adopt, "makes it an instance or a volume of an account, as it is")
QUARANTINE = _verb(
    "quarantine", S.QUARANTINED, _quarantine, "ends the guest, and moves the disks that are nobody's to the trash"
)

STRAY = [ADOPT, QUARANTINE]
