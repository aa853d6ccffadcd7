"""Instances: what an account owns, and everything that can be done to one."""

from django.apps import AppConfig


class InstancesConfig(AppConfig):
    name = "instances"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from hypervisor import listeners
        from hypervisor.models import Stray
        from instances import explaining, models, observing, stray_verbs, verbs
        from operations import register

        register.register_noun(models.Instance, verbs.INSTANCE)
        register.register_noun(Stray, stray_verbs.STRAY)
        register.explainers["i"] = explaining.INSTANCE
        register.explainers["vol"] = explaining.VOLUME
        listeners.on_seen.append(observing.seen)
        listeners.on_seen_all.append(observing.seen_all)
        listeners.on_start.append(observing.node_started)
        listeners.on_silent.append(observing.node_silent)
        listeners.on_drain.append(observing.drain)
        listeners.guests_of.append(observing.nodes_of)
