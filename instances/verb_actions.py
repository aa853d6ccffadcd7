"""What the admin does to instances: the verbs of the table, each with a page that asks first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from instances import services
from instances.api.serializers import MOST_GRACE_S
from instances.models import Instance
from operations.models import Operation


class NothingForm(forms.Form):
    """Verbs that take no fields."""


class PoweroffForm(forms.Form):
    timeout_s = forms.IntegerField(
        label="Seconds to wait for the guest before it is powered off by force",
        min_value=0,
        max_value=MOST_GRACE_S,
        initial=60,
        widget=UnfoldAdminIntegerFieldWidget,
    )


@dataclass(frozen=True, slots=True)
class VerbAction:
    """`verb` is its name in the table, `begin(instance, requested_by=…, **fields)` the service that begins it."""

    verb: str
    title: str
    means: str
    begin: Callable[..., Operation]
    form: type[forms.Form] = NothingForm


def _poweroff_by_force(instance: Instance, *, requested_by: str) -> Operation:
    return services.poweroff_instance(instance, requested_by=requested_by, force=True)


POWERON = VerbAction(
    "poweron", "Power on", "The guest starts with the disks and addresses that it had.", services.poweron_instance
)
POWEROFF = VerbAction(
    "poweroff", "Power off", "The guest is asked to shut down in order.", services.poweroff_instance, PoweroffForm
)
POWEROFF_BY_FORCE = VerbAction(
    "poweroff",
    "Power off by force",
    "As if the plug were pulled: what the guest has not written to its disks is lost.",
    _poweroff_by_force,
)
RETRY = VerbAction(
    "retry",
    "Retry",
    "The operation that left it in error goes on where it stopped: what is whole is used again.",
    services.retry_instance,
)
TERMINATE = VerbAction(
    "terminate",
    "Terminate",
    "This is for good: the guest ends by force, its addresses are given back, and its disks move to the trash.",
    services.terminate_instance,
)


def offered(action: VerbAction, allowed_verbs: list[str], *, is_busy: bool) -> bool:
    """Would the engine take it now? While another operation is open, a power-off is taken by force only."""
    return action.verb in allowed_verbs and not (is_busy and action is POWEROFF)


def begin(action: VerbAction, instance: Instance, *, username: str, fields: dict[str, Any]) -> Operation:
    """Raises Refusal when the engine does not take it."""
    return action.begin(instance, requested_by=f"staff user {username}", **fields)
