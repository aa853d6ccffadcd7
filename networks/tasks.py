"""Steps on a node that build networks."""

from __future__ import annotations

from hypervisor import local
from hypervisor.models import Node
from networks.models import Network
from networks.specs import network_spec
from operations.run import StepRun
from operations.task import step_task


@step_task("networks.plug")
def plug(run: StepRun) -> dict:
    """Make `params["networks"]` whole on this node: bridge, rules, and DHCP that knows the leases."""
    if run.params["hypervisor"] == "fake":
        return {"networks": []}
    networks = Network.objects.filter(uid__in=run.params["networks"]).order_by("uid")
    for network in networks:
        run.checkpoint()
        local.ensure_network(network_spec(network), run)
    return {"networks": [network.uid for network in networks]}


def tend(node: Node) -> None:
    """Heal every network on this node; called when it starts, and every minute."""
    if set(node.hypervisors) == {"fake"}:
        return
    for network in Network.objects.order_by("uid"):
        local.ensure_network(network_spec(network), None)
