"""Nodes in the admin: what they offer, what is taken, whether they live, and whether they take new guests."""

from __future__ import annotations

from django.contrib import admin
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display

from core.admin import RowAdmin, state_badge, uid_link
from core.admin_words import NOTHING, age, ago, linked
from core.units import memory, size
from hypervisor.models import Node, NodePulse, NodeRoom, NodeStatus, Stray
from operations.colours import colours_of
from operations.past_admin import MovingAdmin, PastAdmin

COLOURS = {NodeStatus.ONLINE.value: "success", NodeStatus.OFFLINE.value: "danger"}


@admin.register(Node)
class NodeAdmin(PastAdmin):
    """Its files token is shown nowhere: it opens every stored object."""

    list_display = [
        "uid",
        "name",
        "status",
        "vcpus_taken",
        "memory_taken",
        "disk_taken",
        "kinds",
        "scheduling_enabled",
        "heartbeat",
    ]
    list_filter = [("pulse__status", ChoicesDropdownFilter), "scheduling_enabled"]
    list_select_related = ["room", "pulse"]
    search_fields = ["uid", "name"]
    may_edit = ("scheduling_enabled",)
    fields = [
        "uid",
        "name",
        "status",
        "heartbeat",
        "observed",
        "served_by",
        "scheduling_enabled",
        "kinds",
        "warnings_shown",
        "arch",
        "vcpus_taken",
        "memory_taken",
        "disk_taken",
        "files_url",
        "boot_id",
        "start_id",
        "created_at",
        "see_also",
    ]

    status = state_badge("pulse__status", COLOURS)

    @display(description="kinds of guests")
    def kinds(self, node: Node) -> str:
        how = f" ({node.acceleration})" if node.acceleration else ""
        return ", ".join(f"{kind}{how if kind == 'kvm' else ''}" for kind in node.hypervisors) or NOTHING

    @display(description="warnings")
    def warnings_shown(self, node: Node) -> str:
        return linked(" ".join(node.warnings)) if node.warnings else NOTHING

    @display(description="vCPUs")
    def vcpus_taken(self, node: Node) -> str:
        return f"{node.room.vcpus_used} of {node.vcpus}"

    @display(description="memory")
    def memory_taken(self, node: Node) -> str:
        return f"{memory(node.room.memory_mib_used)} of {memory(node.memory_mib)}"

    @display(description="disk")
    def disk_taken(self, node: Node) -> str:
        return f"{size(node.room.disk_bytes_used)} of {size(node.disk_bytes)}"

    @display(description="heartbeat", ordering="pulse__heartbeat_at")
    def heartbeat(self, node: Node) -> str:
        return age(node.pulse.heartbeat_at)

    @display(description="observed")
    def observed(self, node: Node) -> str:
        return ago(node.pulse.observed_at)

    @display(description="served by")
    def served_by(self, node: Node) -> str:
        return node.pulse.holder or NOTHING


class OfNodeAdmin(RowAdmin):
    """The rows beside a node, each with a writer of its own."""

    ordering = ["-node_id"]
    search_fields = ["node__uid", "node__name"]
    list_select_related = ["node"]

    node_link = uid_link("node")


@admin.register(NodeRoom)
class NodeRoomAdmin(OfNodeAdmin):
    list_display = ["__str__", "node_link", "vcpus_used", "memory_mib_used", "disk_bytes_used"]
    fields = ["node_link", "vcpus_used", "memory_mib_used", "disk_bytes_used"]


@admin.register(NodePulse)
class NodePulseAdmin(OfNodeAdmin):
    list_display = ["__str__", "node_link", "status_shown", "heartbeat_at", "observed_at", "holder"]
    list_filter = [("status", ChoicesDropdownFilter)]
    fields = ["node_link", "status_shown", "heartbeat_at", "observed_at", "holder", "held_until"]

    status_shown = state_badge("status", COLOURS)


@admin.register(Stray)
class StrayAdmin(MovingAdmin):
    """Adopted or put into quarantine by `vdc node adopt` and `vdc node quarantine`."""

    list_display = ["name", "kind", "node_link", "hypervisor", "observed", "state_shown", "busy_with", "seen"]
    list_filter = [("kind", ChoicesDropdownFilter), ("state", ChoicesDropdownFilter)]
    list_select_related = ["node"]
    search_fields = ["uid", "name", "node__uid"]
    fields = [
        "uid",
        "name",
        "kind",
        "node_link",
        "hypervisor",
        "observed",
        "state_shown",
        "error_shown",
        "busy_with",
        "facts",
        "seen",
        "created_at",
    ]

    state_shown = state_badge("state", colours_of(Stray))
    node_link = uid_link("node")

    @display(description="seen", ordering="seen_at")
    def seen(self, stray: Stray) -> str:
        return age(stray.seen_at)
