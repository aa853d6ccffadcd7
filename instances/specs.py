"""An instance in the words of its node."""

from __future__ import annotations

from hypervisor import local
from hypervisor.contract import DiskSpec, GuestSpec, Hypervisor, NicSpec, SeedSpec
from instances.models import Instance, VolumeAttachment

IDS_PER_GUEST = 65_536
FIRST_ID = 524_288  # above what login.defs gives to people
SLOTS_PER_NODE = 512


def guest_spec(instance: Instance) -> GuestSpec:
    """Complete for a driver: everything comes from rows, so two calls give the same spec."""
    node = instance.node
    return GuestSpec(
        uid=instance.uid,
        slot=instance.slot,
        hypervisor=Hypervisor(instance.hypervisor),
        arch=instance.image.arch,
        vcpus=instance.vcpus,
        memory_mib=instance.memory_mib,
        disks=tuple(_disk(attachment, instance.hypervisor) for attachment in instance.links),
        nics=tuple(
            NicSpec(
                mac=vif.lease.mac,
                ipv4=vif.lease.ipv4,
                bridge=vif.network.bridge,
                host_interface=f"v{node.number}s{instance.slot}n{vif.position}",
            )
            for vif in instance.cards
            if vif.lease
        ),
        seed=SeedSpec(
            instance_uid=instance.uid,
            hostname=instance.hostname,
            authorized_keys=tuple(key["public_key"] for key in instance.ssh_keys),
            user_data=instance.user_data,
        ),
        init=instance.image.init,
        root_device=instance.image.root_device,
        uid_base=FIRST_ID + (node.number * SLOTS_PER_NODE + instance.slot) * IDS_PER_GUEST,
        console_log=str(local.console_log(instance.uid)),
    )


def _disk(attachment: VolumeAttachment, hypervisor: str) -> DiskSpec:
    volume = attachment.volume
    return DiskSpec(
        uid=volume.uid,
        path=str(local.disk_path(hypervisor, volume.uid, volume.format)),
        format=volume.format,
        size_bytes=volume.size_bytes,
        boot=attachment.boot,
    )
