"""What each verb does, where, and what its subjects are called meanwhile."""

from __future__ import annotations

import math
from typing import Any

from instances import tasks
from instances.models import Instance, VolumeAttachment
from instances.states import InstanceState as S
from networks import tasks as networks
from operations import timing
from operations.plan import Plan, step
from volumes import tasks as volumes
from volumes.states import VolumeState as V

GRACE_S = 60  # how long an orderly power-off may take unless the caller says otherwise
SPARE_S = 120  # what a step may take beyond the time that it waits for the guest
NO_BYTE_S = 60  # a copy without a byte for this long has failed


def _root(instance: Instance) -> VolumeAttachment:
    return next(link for link in instance.links if link.boot)


def _networks(instance: Instance) -> dict[str, Any]:
    uids = sorted({vif.network.uid for vif in instance.cards})
    return {"hypervisor": instance.hypervisor, "networks": uids}


def launch(instance: Instance, params: dict[str, Any]) -> Plan:
    """Fetch the image, build the root volume, make the network whole, start the guest."""
    node = instance.node.uid
    root = _root(instance).volume
    where = {"hypervisor": instance.hypervisor}
    return Plan(
        (
            step(
                volumes.fetch_image,
                node=node,
                lane="bulk",
                params={**where, "image": instance.image.uid},
                moves={instance: S.PENDING, root: V.PENDING},
                idle_timeout_s=NO_BYTE_S,
            ),
            step(
                volumes.build_volume,
                node=node,
                lane="bulk",
                params={**where, "volume": root.uid},
                moves={instance: S.INITIALIZING, root: V.CREATING},
                settles={root: V.ATTACHED},
                idle_timeout_s=NO_BYTE_S,
            ),
            step(networks.plug, node=node, lane="ops", params=_networks(instance), deadline_s=SPARE_S),
            step(tasks.start_guest, node=node, lane="ops", moves={instance: S.STARTING}, deadline_s=SPARE_S),
        ),
        also=(root,),
    )


def poweron(instance: Instance, params: dict[str, Any]) -> Plan:
    """Make the network whole, start the guest."""
    node = instance.node.uid
    return Plan(
        (
            step(
                networks.plug,
                node=node,
                lane="ops",
                params=_networks(instance),
                moves={instance: S.STARTING},
                deadline_s=SPARE_S,
            ),
            step(tasks.start_guest, node=node, lane="ops", deadline_s=SPARE_S),
        )
    )


def poweroff(instance: Instance, params: dict[str, Any]) -> Plan:
    """Ask the guest to power off; pull the plug when its time is over."""
    grace_s = 0 if params.get("force") else params.get("timeout_s", GRACE_S)
    return Plan(
        (
            step(
                tasks.stop_guest,
                node=instance.node.uid,
                lane="ops",
                params={"grace_s": grace_s},
                moves={instance: S.HALTING},
                # Deadlines are scaled where they are judged; the time that a guest is given is not.
                deadline_s=math.ceil(grace_s / timing.SCALE) + SPARE_S,
            ),
        )
    )


def terminate(instance: Instance, params: dict[str, Any]) -> Plan:
    """Remove the guest, then move the disks that are its own to the trash."""
    node = instance.node.uid
    owned = [link.volume for link in instance.attachments.select_related("volume").filter(delete_on_terminate=True)]
    remove = step(tasks.remove_guest, node=node, lane="ops", moves={instance: S.SHUTTINGDOWN}, deadline_s=SPARE_S)
    discard = (
        step(
            volumes.discard_volume,
            node=node,
            lane="ops",
            params={
                "hypervisor": instance.hypervisor,
                "volume": volume.uid,
                "reason": f"{instance.uid} was terminated",
            },
            moves={volume: V.DELETING},
            deadline_s=SPARE_S,
        )
        for volume in owned
    )
    return Plan((remove, *discard), also=tuple(owned))
