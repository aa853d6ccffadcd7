"""Nodes: what they are, what is taken of them, and whether they live. Three rows, since each has its own writer."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from core.rows import Row


class NodeStatus(models.TextChoices):
    ONLINE = "online"
    OFFLINE = "offline"


class Node(Row):
    """A machine that runs guests. vCPUs, memory and disk are what it offers, not what it has."""

    PREFIX = "hn"

    name = models.CharField(max_length=255, unique=True)
    arch = models.CharField(max_length=32)
    hypervisors = models.JSONField(default=list)  # ["kvm", "lxc"]
    acceleration = models.CharField(max_length=16, blank=True)  # of kvm guests: "kvm" or "tcg"
    warnings = models.JSONField(default=list)  # sentences for the operator
    vcpus = models.PositiveIntegerField()
    memory_mib = models.PositiveIntegerField()
    disk_bytes = models.PositiveBigIntegerField()
    scheduling_enabled = models.BooleanField(default=True)
    number = models.PositiveSmallIntegerField(default=0)  # of its stack: part of interface names and user ids
    files_url = models.CharField(max_length=255, blank=True)  # where its files server answers
    files_token = models.CharField(max_length=255, blank=True)
    boot_id = models.CharField(max_length=64, blank=True)  # of the start that its guests were last brought up for
    start_id = models.CharField(max_length=64, blank=True)

    def __str__(self) -> str:
        return f"{self.uid} ({self.name})"


class StrayState(models.TextChoices):
    SEEN = "seen"
    ADOPTING = "adopting"
    ADOPTED = "adopted"
    QUARANTINING = "quarantining"
    QUARANTINED = "quarantined"
    ERROR = "error"


class StrayKind(models.TextChoices):
    GUEST = "guest"
    VOLUME = "volume"


class Stray(Row):
    """What a node has of ours that no row knows: reported as long as it is seen, and touched by operators alone.

    seen ──► adopting ──► adopted             it became an instance or a volume
      └────► quarantining ──► quarantined     it was removed, its disks lie in the trash
    """

    PREFIX = "st"
    KIND = "stray"
    MOVING = (StrayState.ADOPTING, StrayState.QUARANTINING)

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="strays")
    kind = models.CharField(max_length=16, choices=StrayKind)
    name = models.CharField(max_length=255)  # i-… or vol-…
    hypervisor = models.CharField(max_length=16)
    state = models.CharField(max_length=16, choices=StrayState, default=StrayState.SEEN)
    error = models.JSONField(null=True)
    observed = models.CharField(max_length=16, blank=True)  # of a guest
    facts = models.JSONField(default=dict)  # what it is made of, as far as the node can tell
    seen_at = models.DateTimeField(db_default=Now())

    class Meta(Row.Meta):
        constraints = [
            models.UniqueConstraint(fields=["node", "name"], name="one_stray_per_name"),
        ]

    def __str__(self) -> str:
        return f"{self.name} on {self.node}"


class NodeRoom(models.Model):
    """What is taken of a node. Changed only by claims on this row."""

    node = models.OneToOneField(Node, on_delete=models.CASCADE, related_name="room", primary_key=True)
    vcpus_used = models.PositiveIntegerField(default=0)
    memory_mib_used = models.PositiveIntegerField(default=0)
    disk_bytes_used = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"room of {self.node}"


class NodePulse(models.Model):
    """Signs of life. `holder` serves the node until `held_until`: two machines never serve one node."""

    node = models.OneToOneField(Node, on_delete=models.CASCADE, related_name="pulse", primary_key=True)
    status = models.CharField(max_length=16, choices=NodeStatus, default=NodeStatus.OFFLINE)
    heartbeat_at = models.DateTimeField(null=True)
    observed_at = models.DateTimeField(null=True)
    holder = models.CharField(max_length=255, blank=True)
    held_until = models.DateTimeField(null=True)
    figures = models.JSONField(default=dict)  # what the observer measured at its last look at everything

    def __str__(self) -> str:
        return f"pulse of {self.node}"
