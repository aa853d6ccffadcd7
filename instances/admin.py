"""Instances in the admin: looked at freely, changed by the verbs of their table alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.contrib.filters.admin import AutocompleteSelectFilter, ChoicesDropdownFilter
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from core.admin import RowAdmin, state_badge, uid_link
from core.admin_words import NOTHING, ago, linked
from core.errors import Refusal
from core.units import memory, size
from hypervisor.contract import Observed
from instances import verb_actions
from instances.models import Instance, Vif, VolumeAttachment
from instances.verb_actions import VerbAction
from operations import engine
from operations.colours import colours_of
from operations.past_admin import MovingAdmin

BUTTONS = {
    "poweron": verb_actions.POWERON,
    "poweroff": verb_actions.POWEROFF,
    "poweroff_by_force": verb_actions.POWEROFF_BY_FORCE,
    "retry": verb_actions.RETRY,
    "terminate": verb_actions.TERMINATE,
}
OBSERVED_COLOURS = {Observed.RUNNING.value: "success", Observed.CRASHED.value: "danger"}


@admin.register(Instance)
class InstanceAdmin(MovingAdmin):
    """What a tenant wrote into the user data is not shown, since people put passwords there."""

    list_display = [
        "uid",
        "name",
        "state_shown",
        "observed_shown",
        "busy_with",
        "addresses",
        "size",
        "node_link",
        "account_link",
        "created_at",
    ]
    list_filter = [
        ("state", ChoicesDropdownFilter),
        ("observed", ChoicesDropdownFilter),
        ("node", AutocompleteSelectFilter),
        ("account", AutocompleteSelectFilter),
        ("image", AutocompleteSelectFilter),
    ]
    search_fields = ["uid", "name", "hostname"]
    search_help_text = "A part of an id, a name or a host name"
    fieldsets = [
        (None, {"fields": ["uid", "name", "hostname", "state_shown", "error_shown", "busy_with", "wanted"]}),
        (
            "Where it runs",
            {"fields": ["node_link", "observed_shown", "seen", "size", "slot", "room_held"]},
        ),
        (
            "What it is made of",
            {"fields": ["image_link", "volumes", "networks", "addresses", "keys", "user_data_shown"]},
        ),
        ("Whose it is", {"fields": ["account_link", "created_at", "terminated_at"]}),
    ]
    actions = ["poweron_chosen", "poweroff_chosen", "poweroff_by_force_chosen", "retry_chosen", "terminate_chosen"]
    actions_detail = list(BUTTONS)

    state_shown = state_badge("state", colours_of(Instance))
    observed_shown = state_badge("observed", OBSERVED_COLOURS)
    node_link = uid_link("node")
    image_link = uid_link("image")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Instance]:
        return (
            super()
            .get_queryset(request)
            .select_related("account", "image", "node")
            .prefetch_related("attachments__volume", "vifs__lease", "vifs__network")
        )

    @display(description="size", ordering="memory_mib")
    def size(self, instance: Instance) -> str:
        return f"{instance.hypervisor}, {instance.vcpus} vCPU, {memory(instance.memory_mib)}"

    @display(description="addresses")
    def addresses(self, instance: Instance) -> str:
        return ", ".join(vif.lease.ipv4 for vif in instance.vifs.all() if vif.lease) or NOTHING

    @display(description="networks")
    def networks(self, instance: Instance) -> str:
        return linked(", ".join(f"{vif.network.uid} by {vif.uid}" for vif in instance.vifs.all()) or NOTHING)

    @display(description="volumes")
    def volumes(self, instance: Instance) -> str:
        volumes = [part.volume for part in instance.attachments.all()]
        return linked(", ".join(f"{one.uid} ({one.state}, {size(one.size_bytes)})" for one in volumes) or NOTHING)

    @display(description="seen")
    def seen(self, instance: Instance) -> str:
        reason = f" ({instance.observed_reason})" if instance.observed_reason else ""
        return f"{ago(instance.observed_at)}{reason}"

    @display(description="ssh keys at launch")
    def keys(self, instance: Instance) -> str:
        return linked(", ".join(key["id"] for key in instance.ssh_keys) or NOTHING)

    @display(description="user data")
    def user_data_shown(self, instance: Instance) -> str:
        return f"{len(instance.user_data)} characters" if instance.user_data else NOTHING

    # --- verbs -------------------------------------------------------------------------------------------------

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """The verbs are what changing an instance means."""
        return request.user.has_perm("instances.change_instance")

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[UnfoldAction]:
        """The buttons of one instance: those verbs that would be taken now."""
        instance = self.get_object(request, object_id)
        if instance is None:
            return []
        holder = engine.holder_of(instance.uid)
        allowed = engine.allowed_verbs(instance, holder)
        wanted = {
            name for name, verb in BUTTONS.items() if verb_actions.offered(verb, allowed, is_busy=holder is not None)
        }
        return [
            button
            for button in super().get_actions_detail(request, object_id)
            if button.method.original_function_name in wanted
        ]

    @action(description="Power on", permissions=["operate"], icon="play_arrow", variant=ActionVariant.PRIMARY)
    def poweron(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask_one(request, object_id, verb_actions.POWERON)

    @action(description="Power off", permissions=["operate"], icon="power_settings_new")
    def poweroff(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask_one(request, object_id, verb_actions.POWEROFF)

    @action(description="Power off by force", permissions=["operate"], icon="power_off")
    def poweroff_by_force(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask_one(request, object_id, verb_actions.POWEROFF_BY_FORCE)

    @action(description="Retry", permissions=["operate"], icon="replay", variant=ActionVariant.PRIMARY)
    def retry(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask_one(request, object_id, verb_actions.RETRY)

    @action(description="Terminate", permissions=["operate"], icon="delete", variant=ActionVariant.DANGER)
    def terminate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask_one(request, object_id, verb_actions.TERMINATE)

    @action(description="Power on", permissions=["operate"])
    def poweron_chosen(self, request: HttpRequest, chosen: QuerySet[Instance]) -> HttpResponse:
        return self._ask(request, list(chosen), verb_actions.POWERON)

    @action(description="Power off", permissions=["operate"])
    def poweroff_chosen(self, request: HttpRequest, chosen: QuerySet[Instance]) -> HttpResponse:
        return self._ask(request, list(chosen), verb_actions.POWEROFF)

    @action(description="Power off by force", permissions=["operate"])
    def poweroff_by_force_chosen(self, request: HttpRequest, chosen: QuerySet[Instance]) -> HttpResponse:
        return self._ask(request, list(chosen), verb_actions.POWEROFF_BY_FORCE)

    @action(description="Retry", permissions=["operate"])
    def retry_chosen(self, request: HttpRequest, chosen: QuerySet[Instance]) -> HttpResponse:
        return self._ask(request, list(chosen), verb_actions.RETRY)

    @action(description="Terminate", permissions=["operate"])
    def terminate_chosen(self, request: HttpRequest, chosen: QuerySet[Instance]) -> HttpResponse:
        return self._ask(request, list(chosen), verb_actions.TERMINATE)

    def _ask_one(self, request: HttpRequest, object_id: str, verb: VerbAction) -> HttpResponse:
        instance = self.get_object(request, object_id)
        if instance is None:
            raise Http404
        return self._ask(request, [instance], verb, after=reverse("admin:instances_instance_change", args=[object_id]))

    def _ask(
        self, request: HttpRequest, instances: Sequence[Instance], verb: VerbAction, after: str = ""
    ) -> HttpResponse:
        """Ask first; do it when the answer to that comes back. A GET never does anything."""
        is_answer = request.method == "POST" and "sure" in request.POST
        form = verb.form(request.POST if is_answer else None)
        if is_answer and form.is_valid():
            for instance in instances:
                self._begin(request, instance, verb, form.cleaned_data)
            return HttpResponseRedirect(after or request.get_full_path())
        context = {
            **self.admin_site.each_context(request),
            "title": verb.title,
            "opts": self.opts,
            "original": instances[0] if len(instances) == 1 else None,
            "verb": verb,
            "form": form,
            "instances": instances,
            "action": request.POST.get("action", ""),
            "checkbox": ACTION_CHECKBOX_NAME,
            "back": after or reverse("admin:instances_instance_changelist"),
        }
        return TemplateResponse(request, "instances/verb.html", context)

    def _begin(self, request: HttpRequest, instance: Instance, verb: VerbAction, fields: dict[str, Any]) -> None:
        try:
            operation = verb_actions.begin(verb, instance, username=request.user.get_username(), fields=fields)
        except Refusal as refused:
            self.message_user(request, linked(refused.detail), messages.ERROR)
        else:
            said = f"{verb.title} of {instance.uid} is on its way: {operation.uid}"
            self.message_user(request, linked(said), messages.SUCCESS)


@admin.register(VolumeAttachment)
class VolumeAttachmentAdmin(RowAdmin):
    ordering = ["-id"]
    list_display = ["__str__", "instance_link", "volume_link", "position", "boot", "delete_on_terminate"]
    list_select_related = ["instance", "volume"]
    search_fields = ["instance__uid", "volume__uid"]
    fields = ["instance_link", "volume_link", "position", "boot", "delete_on_terminate"]

    instance_link = uid_link("instance")
    volume_link = uid_link("volume")


@admin.register(Vif)
class VifAdmin(RowAdmin):
    list_display = ["uid", "instance_link", "network_link", "ipv4", "mac", "created_at"]
    list_filter = [("network", AutocompleteSelectFilter)]
    list_select_related = ["instance", "network", "lease"]
    search_fields = ["uid", "instance__uid", "lease__ipv4", "lease__mac"]
    fields = ["uid", "instance_link", "network_link", "position", "ipv4", "mac", "created_at"]

    instance_link = uid_link("instance")
    network_link = uid_link("network")

    @display(description="IPv4", ordering="lease__ipv4")
    def ipv4(self, vif: Vif) -> str:
        return vif.lease.ipv4 if vif.lease else NOTHING

    @display(description="MAC", ordering="lease__mac")
    def mac(self, vif: Vif) -> str:
        return vif.lease.mac if vif.lease else NOTHING
