"""Networks and what is leased in them. Who holds an address is a row under a unique constraint, nothing else."""

from __future__ import annotations

import ipaddress

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Now

from accounts.owned import OwnedQuerySet
from core.rows import Row


class NetworkQuerySet(OwnedQuerySet):
    """Networks without an account are the data center's own: everyone may use them."""

    def visible_to(self, access) -> NetworkQuerySet:
        return self.filter(models.Q(account_id=access.account.id) | models.Q(account=None))

    def reachable_by(self, access) -> NetworkQuerySet:
        return self.all() if access.is_operator else self.visible_to(access)


class Network(Row):
    """An IPv4 network with a bridge on each node, DHCP from its leases, and NAT to the outside."""

    PREFIX = "nw"

    account = models.ForeignKey("accounts.Account", null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    name = models.CharField(max_length=255)
    ipv4_network = models.CharField(max_length=18, unique=True)  # "10.77.0.0/24"
    gateway = models.GenericIPAddressField(protocol="IPv4")
    bridge = models.CharField(max_length=15, unique=True)
    dns = models.JSONField(default=list, blank=True)
    is_default = models.BooleanField(default=False)

    objects = NetworkQuerySet.as_manager()

    class Meta(Row.Meta):
        constraints = [
            models.UniqueConstraint(
                fields=["is_default"], condition=models.Q(is_default=True), name="one_default_network"
            )
        ]

    def __str__(self) -> str:
        return f"{self.uid} ({self.ipv4_network})"

    def clean(self) -> None:
        try:
            network = ipaddress.IPv4Network(self.ipv4_network)
        except ValueError as exc:
            raise ValidationError({"ipv4_network": f"{self.ipv4_network!r} is no IPv4 network: {exc}."}) from exc
        if ipaddress.IPv4Address(self.gateway) not in network:
            raise ValidationError({"gateway": f"{self.gateway} is not inside {network}."})


class Lease(models.Model):
    """One pair of addresses, held by the vif `holder` (vif-…); the DHCP server is told nothing else."""

    network = models.ForeignKey(Network, on_delete=models.PROTECT, related_name="leases")
    ipv4 = models.GenericIPAddressField(protocol="IPv4")
    mac = models.CharField(max_length=17)  # "52:54:00:ab:cd:ef"
    hostname = models.CharField(max_length=63)
    holder = models.CharField(max_length=255)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["network", "ipv4"], name="one_holder_per_ipv4"),
            models.UniqueConstraint(fields=["mac"], name="one_holder_per_mac"),
            models.UniqueConstraint(fields=["holder"], name="one_lease_per_vif"),
        ]

    def __str__(self) -> str:
        return f"{self.ipv4} for {self.holder}"
