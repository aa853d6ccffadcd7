"""Make this machine a node, or bring its row up to date: probe what it really has, and write that down."""

from __future__ import annotations

import os
from pathlib import Path

from django.conf import settings
from django.db import transaction

from hypervisor import local
from hypervisor.models import Node, NodePulse, NodeRoom
from hypervisor.probe import probe_node
from operations.events import note

VCPUS_PER_CPU = 8  # guests share CPUs; cgroups keep the shares fair
HOST_MEMORY_MIB = 1024  # kept for the host itself
DISK_SHARE = 0.9  # of what was free at the first join; the rest is the host's


def join(kernel: Path | None = None) -> Node:
    """Probe and write the row. Joining again changes only what the probe sees differently."""
    facts = probe_node(local.node_dir() / "cache", Path(settings.STACK["libvirt_socket"]), kernel=kernel)
    stack = settings.STACK
    seen = {
        "arch": facts.arch,
        "hypervisors": [str(driver) for driver in facts.drivers],
        "acceleration": facts.acceleration if "kvm" in facts.drivers else "",
        "warnings": list(facts.warnings),
        "vcpus": facts.vcpus * VCPUS_PER_CPU,
        "memory_mib": max(facts.memory_mib - HOST_MEMORY_MIB, facts.memory_mib // 2),
        "number": stack["number"],
        "files_url": f"http://127.0.0.1:{stack['files_port']}",
        "files_token": stack["files_token"],
    }
    with transaction.atomic():
        node, is_new = Node.objects.update_or_create(
            name=stack["node_name"],
            defaults=seen,
            create_defaults={**seen, "disk_bytes": int(facts.disk_free_bytes * DISK_SHARE)},
        )
        NodeRoom.objects.get_or_create(node=node)
        NodePulse.objects.get_or_create(node=node)
        if is_new:
            note("node", node.uid, "node.join", f"{node} joined from {os.uname().nodename}")
    return node
