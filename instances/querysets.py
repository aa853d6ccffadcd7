"""Which instances?"""

from __future__ import annotations

from django.db.models import Prefetch

from accounts.owned import OwnedQuerySet
from instances.states import InstanceState


class InstanceQuerySet(OwnedQuerySet):
    def live(self) -> InstanceQuerySet:
        """Those that are not terminated."""
        return self.exclude(state=InstanceState.TERMINATED)

    def on_node(self, node) -> InstanceQuerySet:
        """Those that a node should know."""
        return self.live().filter(node=node)

    def with_parts(self) -> InstanceQuerySet:
        """Everything that printing or driving an instance touches, in three statements."""
        from instances.models import Vif, VolumeAttachment  # which in turn are made of this module

        return self.select_related("account", "image", "node").prefetch_related(
            Prefetch("attachments", VolumeAttachment.objects.select_related("volume")),
            Prefetch("vifs", Vif.objects.select_related("lease", "network")),
        )
