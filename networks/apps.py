"""Networks: address plans, leases, and how a node builds them."""

from django.apps import AppConfig


class NetworksConfig(AppConfig):
    name = "networks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from hypervisor import listeners
        from networks import tasks

        listeners.on_tend.append(tasks.tend)
