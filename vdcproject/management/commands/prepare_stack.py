"""`manage.py prepare_stack`: what a new data center needs before its first request; may be run at every start."""

from __future__ import annotations

import ipaddress
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from django.db import transaction

from accounts.models import Account, Member, Role
from hypervisor import local
from networks.models import Network
from volumes.models import BackupStorage


class Command(BaseCommand):
    help = (
        "Make the operator, the first account, the default network, and (once the node has joined) the backup storage."
    )

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        stack = settings.STACK
        account, _ = Account.objects.get_or_create(name="demo")
        operator = self._operator(stack["operator"])
        Member.objects.get_or_create(user=operator, account=account, defaults={"role": Role.OWNER})
        network = ipaddress.IPv4Network(stack["ipv4_network"])
        Network.objects.get_or_create(
            is_default=True,
            defaults={
                "name": "default",
                "ipv4_network": str(network),
                "gateway": str(network[1]),
                "bridge": stack["bridge"],
            },
        )
        BackupStorage.objects.get_or_create(name="local", defaults={"node": local.this_node()})

    def _operator(self, wanted: dict[str, str]) -> Any:
        users = get_user_model().objects
        operator = users.filter(username=wanted["username"]).first()
        if operator is None:
            operator = users.create_superuser(wanted["username"], password=wanted["password"])
        return operator
