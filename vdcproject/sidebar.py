"""The groups of the admin's sidebar."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import reverse_lazy


def _item(title: str, icon: str, app: str, model: str) -> dict[str, Any]:
    """A line that leads to the list of a model, for those who may see it."""

    def permitted(request: HttpRequest) -> bool:
        return request.user.has_perm(f"{app}.view_{model}") or request.user.has_perm(f"{app}.change_{model}")

    link = reverse_lazy(f"admin:{app}_{model}_changelist")
    return {"title": title, "icon": icon, "link": link, "permission": permitted}


SIDEBAR = [
    {
        "title": "Compute",
        "items": [
            _item("Instances", "terminal", "instances", "instance"),
            _item("Volumes", "hard_drive", "volumes", "volume"),
            _item("Images", "album", "volumes", "image"),
            _item("Networks", "lan", "networks", "network"),
        ],
    },
    {
        "title": "What happens",
        "items": [
            _item("Operations", "conversion_path", "operations", "operation"),
            _item("Steps", "footprint", "operations", "step"),
            _item("Events", "history", "operations", "event"),
        ],
    },
    {
        "title": "Machines",
        "items": [
            _item("Nodes", "dns", "hypervisor", "node"),
            _item("Strays", "pets", "hypervisor", "stray"),
            _item("Backup storages", "storage", "volumes", "backupstorage"),
            _item("Backup objects", "inventory_2", "volumes", "backupobject"),
        ],
    },
    {
        "title": "People",
        "items": [
            _item("Accounts", "domain", "accounts", "account"),
            _item("Users", "person", "auth", "user"),
            _item("Members", "group", "accounts", "member"),
            _item("API tokens", "key", "accounts", "apitoken"),
            _item("SSH key pairs", "vpn_key", "accounts", "sshkeypair"),
            _item("Operators' access", "visibility", "accounts", "accessrecord"),
        ],
    },
    {
        "title": "Underneath",
        "collapsible": True,
        "items": [
            _item("Attachments", "link", "instances", "volumeattachment"),
            _item("Network cards", "cable", "instances", "vif"),
            _item("Leases", "tag", "networks", "lease"),
            _item("Rooms of nodes", "data_usage", "hypervisor", "noderoom"),
            _item("Pulses of nodes", "monitor_heart", "hypervisor", "nodepulse"),
            _item("Holds", "lock", "operations", "operationsubject"),
            _item("Groups", "groups", "auth", "group"),
        ],
    },
]
