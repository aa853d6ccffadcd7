"""Hypervisor: the nodes, how one is chosen, and how it is driven."""

from django.apps import AppConfig


class HypervisorConfig(AppConfig):
    name = "hypervisor"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from hypervisor import explaining, liveness
        from operations import register

        register.node_troubles.append(liveness.troubles)
        register.lanes.append(liveness.lanes)
        register.explainers["hn"] = explaining.NODE
        register.explainers["st"] = explaining.STRAY
        liveness.register_chore()
