"""The automaton of instances.

scheduling ──► pending ──► initializing ──► starting ──► running ──► halting ──► halted ──► starting …
                                                           └──► shuttingdown ──► terminated
each moving state ──► error, with the reason; `wanted` (running, halted) says what it should be
"""

from django.db import models


class InstanceState(models.TextChoices):
    SCHEDULING = "scheduling"
    PENDING = "pending"
    INITIALIZING = "initializing"
    STARTING = "starting"
    RUNNING = "running"
    HALTING = "halting"
    HALTED = "halted"
    SHUTTINGDOWN = "shuttingdown"
    TERMINATED = "terminated"
    ERROR = "error"


class Wanted(models.TextChoices):
    RUNNING = "running"
    HALTED = "halted"


MOVING = (
    InstanceState.SCHEDULING,
    InstanceState.PENDING,
    InstanceState.INITIALIZING,
    InstanceState.STARTING,
    InstanceState.HALTING,
    InstanceState.SHUTTINGDOWN,
)
