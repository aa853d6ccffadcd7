"""Instances, and the links that tie them to volumes and networks."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.functional import cached_property

from accounts.owned import OwnedRow
from core.rows import Row
from hypervisor.contract import Observed
from hypervisor.models import Node
from instances import states
from instances.querysets import InstanceQuerySet
from instances.states import InstanceState, Wanted
from networks.models import Lease, Network
from volumes.models import Image, Volume


class Instance(OwnedRow):
    """What an account owns. `state` is what we believe, `observed` what the node saw last; they are never mixed."""

    PREFIX = "i"
    KIND = "instance"
    MOVING = states.MOVING

    name = models.CharField(max_length=255)
    hostname = models.CharField(max_length=63)
    state = models.CharField(max_length=16, choices=InstanceState, default=InstanceState.SCHEDULING)
    wanted = models.CharField(max_length=16, choices=Wanted, default=Wanted.RUNNING)
    error = models.JSONField(null=True)
    observed = models.CharField(
        max_length=16, choices=[(word.value, word.value) for word in Observed], default=Observed.UNKNOWN
    )
    observed_reason = models.CharField(max_length=255, blank=True)
    observed_at = models.DateTimeField(null=True)
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="+")
    node = models.ForeignKey(Node, null=True, on_delete=models.PROTECT, related_name="+")
    hypervisor = models.CharField(max_length=16)
    vcpus = models.PositiveIntegerField()
    memory_mib = models.PositiveIntegerField()
    slot = models.PositiveIntegerField(null=True)  # small number on its node: names interfaces, chooses user ids
    room_held = models.BooleanField(default=False)
    user_data = models.TextField(blank=True)
    ssh_keys = models.JSONField(default=list)  # [{"id": "ssh-…", "public_key": "…"}], as they were at launch
    terminated_at = models.DateTimeField(null=True)

    objects = InstanceQuerySet.as_manager()

    class Meta(OwnedRow.Meta):
        indexes = [
            *OwnedRow.Meta.indexes,
            models.Index(fields=["node"], name="instance_live_on_node", condition=Q(terminated_at=None)),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["account", "hostname"],
                condition=Q(terminated_at=None),
                name="one_live_instance_per_hostname",
            ),
            models.UniqueConstraint(fields=["node", "slot"], name="one_guest_per_slot"),
        ]

    @cached_property
    def links(self) -> list[VolumeAttachment]:
        """Its volumes in order, read once; whoever has just made them says so."""
        return list(self.attachments.all())

    @cached_property
    def cards(self) -> list[Vif]:
        """Its network cards in order, read once; whoever has just made them says so."""
        return list(self.vifs.all())


class VolumeAttachment(models.Model):
    """A volume of an instance; the one with `boot` is where it boots from."""

    instance = models.ForeignKey(Instance, on_delete=models.PROTECT, related_name="attachments")
    volume = models.OneToOneField(Volume, on_delete=models.PROTECT, related_name="attachment")
    position = models.PositiveSmallIntegerField()
    boot = models.BooleanField(default=False)
    delete_on_terminate = models.BooleanField(default=True)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["instance", "position"], name="one_volume_per_position"),
        ]

    def __str__(self) -> str:
        return f"{self.volume_id} at position {self.position}"


class Vif(Row):
    """A network card of an instance. Its addresses are its lease; without one it has none."""

    PREFIX = "vif"

    instance = models.ForeignKey(Instance, on_delete=models.PROTECT, related_name="vifs")
    network = models.ForeignKey(Network, on_delete=models.PROTECT, related_name="+")
    position = models.PositiveSmallIntegerField()
    lease = models.OneToOneField(Lease, null=True, on_delete=models.SET_NULL, related_name="vif")

    class Meta(Row.Meta):
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["instance", "position"], name="one_vif_per_position"),
        ]
