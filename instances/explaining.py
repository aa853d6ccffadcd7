"""What can be said of instances and their volumes to whoever asks what is wrong."""

from __future__ import annotations

from core.units import memory, size
from hypervisor.contract import Observed
from hypervisor.explaining import sights
from instances.models import Instance
from instances.states import InstanceState
from operations.explaining import Explainer, Facts, Sight
from volumes.models import Volume
from volumes.states import VolumeState

# What a node may see of a guest in a settled state without anything being wrong.
FITS = {
    InstanceState.RUNNING: {Observed.RUNNING},
    InstanceState.HALTED: {Observed.HALTED, Observed.ABSENT},
    InstanceState.TERMINATED: {Observed.ABSENT},
}


def _instance_facts(instance: Instance) -> Facts:
    links, vifs = list(instance.attachments.all()), list(instance.vifs.all())
    asked = {
        "wanted": instance.wanted,
        "image": f"{instance.image.uid} ({instance.image.name})",
        "size": f"{instance.hypervisor}, {instance.vcpus} vCPU, {memory(instance.memory_mib)} of memory",
        "node": str(instance.node or "none"),
        "volumes": ", ".join(link.volume.uid for link in links) or "none",
        "networks": ", ".join(vif.network.uid for vif in vifs) or "none",
        "user data": f"{len(instance.user_data)} characters" if instance.user_data else "none",
    }
    return Facts(
        asked=asked,
        seen=[Sight(instance.uid, _seen(instance), instance.observed_at), *sights(instance.node)],
        held=_held(instance),
        verdict=_verdict(instance),
    )


def _seen(instance: Instance) -> str:
    return f"{instance.observed} ({instance.observed_reason})" if instance.observed_reason else instance.observed


def _held(instance: Instance) -> list[str]:
    held = []
    if instance.room_held:
        held.append(f"{instance.vcpus} vCPU and {memory(instance.memory_mib)} of memory on {instance.node}")
    if instance.slot is not None:
        held.append(f"slot {instance.slot} of {instance.node}")
    held += [f"the address {vif.lease.ipv4} on {vif.network.uid}" for vif in instance.vifs.all() if vif.lease]
    held += [
        f"{link.volume.uid} of {size(link.volume.size_bytes)}, {link.volume.state}"
        for link in instance.attachments.all()
        if link.volume.state != VolumeState.DELETED
    ]
    return held


def _verdict(instance: Instance) -> str:
    fits = FITS.get(InstanceState(instance.state))
    if instance.state == InstanceState.TERMINATED or fits is None:
        return ""
    if instance.observed == Observed.UNKNOWN:
        return f"{instance.uid} is believed {instance.state}, but nobody can see it now."
    if instance.observed in fits:
        unlike = "" if instance.wanted == instance.state else f", although it is wanted {instance.wanted}"
        return f"{instance.uid} is {instance.state}, and its node sees it so{unlike}."
    return f"{instance.uid} is believed {instance.state}, but its node sees it {_seen(instance)}."


def _volume_facts(volume: Volume) -> Facts:
    link = getattr(volume, "attachment", None)
    held = [f"{size(volume.size_bytes)} of disk on {volume.node}"] if volume.room_held else []
    return Facts(
        asked={
            "size": f"{size(volume.size_bytes)} ({volume.format})",
            "image": volume.image.uid if volume.image else "none",
            "instance": f"{link.instance.uid} ({link.instance.state})" if link else "none",
            "node": str(volume.node or "none"),
        },
        seen=sights(volume.node),
        held=held,
        concerns=(link.instance.uid,) if link else (),
        verdict=f"{volume.uid} is {volume.state}; nothing is wrong with it.",
    )


INSTANCE = Explainer(
    "instance",
    lambda: Instance.objects.with_parts().select_related("account", "image", "node__pulse"),
    _instance_facts,
)
VOLUME = Explainer(
    "volume",
    lambda: Volume.objects.select_related("account", "image", "node__pulse", "attachment__instance"),
    _volume_facts,
)
