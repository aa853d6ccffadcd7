"""Which instances?"""

from __future__ import annotations

from django.db.models import Prefetch

from accounts.owned import OwnedQuerySet
from instances.states import InstanceState

_OF_A_GUEST = ["uid", "slot", "hypervisor", "vcpus", "memory_mib", "hostname", "user_data", "ssh_keys"]
_OF_A_GUEST += ["image__arch", "image__init", "image__root_device", "node__number", "node__uid"]
_OF_A_DISK = ["instance", "boot", "position", "volume__uid", "volume__format", "volume__size_bytes"]
_OF_A_NIC = ["instance", "position", "lease__mac", "lease__ipv4", "network__bridge"]


class InstanceQuerySet(OwnedQuerySet):
    def live(self) -> InstanceQuerySet:
        """Those that are not terminated."""
        return self.exclude(state=InstanceState.TERMINATED)

    def on_node(self, node) -> InstanceQuerySet:
        """Those that a node should know."""
        return self.live().filter(node=node)

    def with_parts(self) -> InstanceQuerySet:
        """Everything that printing an instance touches, in three statements."""
        from instances.models import Vif, VolumeAttachment  # which in turn are made of this module

        return self.select_related("account", "image", "node").prefetch_related(
            Prefetch("attachments", VolumeAttachment.objects.select_related("volume")),
            Prefetch("vifs", Vif.objects.select_related("lease", "network")),
        )

    def for_its_node(self) -> InstanceQuerySet:
        """What a guest's spec is made of, and little else: wide rows are what such a step would cost most."""
        from instances.models import Vif, VolumeAttachment

        volumes = VolumeAttachment.objects.select_related("volume")
        vifs = Vif.objects.select_related("lease", "network")
        return (
            self.select_related("image", "node")
            .only(*_OF_A_GUEST)
            .prefetch_related(
                Prefetch("attachments", volumes.only(*_OF_A_DISK)), Prefetch("vifs", vifs.only(*_OF_A_NIC))
            )
        )
