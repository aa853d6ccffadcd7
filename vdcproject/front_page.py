"""What the first page of the admin shows: nodes, instances, what moves, and what failed of late."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Count
from django.db.models.functions import Now
from django.http import HttpRequest

from core.admin_words import badge
from hypervisor import admin as node_pages
from hypervisor.models import Node
from instances.models import Instance
from operations.colours import colours_of
from operations.models import Operation
from operations.states import OperationState

MOST = 20  # lines of each part; the lists have the rest


def front_page(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's callback; each part for those who may see its list."""
    may = request.user.has_perm
    context["title"] = "At a glance"
    if may("hypervisor.view_node"):
        nodes = Node.objects.select_related("pulse", "room")[:MOST]
        context["nodes"] = [(node, badge(node.pulse.status, node_pages.COLOURS)) for node in nodes]
    if may("instances.view_instance"):
        context["instance_counts"] = _instance_counts()
    if may("operations.view_operation"):
        context["open_operations"] = Operation.objects.filter(ended_at=None)[:MOST]
        context["failed_operations"] = Operation.objects.filter(
            state=OperationState.FAILED, ended_at__gt=Now() - timedelta(days=1)
        )[:MOST]
    return context


def _instance_counts() -> list[tuple[int, str, str]]:
    """(how many, state, the state as a label) of those that are not terminated."""
    counts = Instance.objects.live().order_by("state").values_list("state").annotate(count=Count("id"))
    return [(count, state, badge(state, colours_of(Instance))) for state, count in counts]
