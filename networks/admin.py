"""Networks and their leases in the admin. A network is added whole; later only its name and DNS servers change."""

from __future__ import annotations

import ipaddress

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextInputWidget

from core.admin import RowAdmin, uid_link
from networks.leases import usable_addresses
from networks.models import Lease, Network
from operations.past_admin import PastAdmin


class DnsField(forms.CharField):
    """IPv4 addresses with commas between them on the page, a list in the row."""

    widget = UnfoldAdminTextInputWidget

    def prepare_value(self, value: object) -> object:
        return ", ".join(value) if isinstance(value, list) else value

    def has_changed(self, initial: object, data: object) -> bool:
        return super().has_changed(self.prepare_value(initial), data)

    def to_python(self, value: object) -> list[str]:
        words = str(value or "").replace(",", " ").split()
        try:
            return [str(ipaddress.IPv4Address(word)) for word in words]
        except ValueError as exc:
            raise ValidationError(f"{exc}; write IPv4 addresses with commas between them.") from exc


class NetworkForm(forms.ModelForm):
    dns = DnsField(
        label="DNS servers",
        required=False,
        help_text="IPv4 addresses, with commas between them. Empty: those of the node. "
        "Guests hear of a change when they ask for their address again, after a guest was started there.",
    )


@admin.register(Network)
class NetworkAdmin(PastAdmin):
    form = NetworkForm
    list_display = ["uid", "name", "ipv4_network", "gateway", "bridge", "is_default", "leased", "account_link"]
    list_filter = ["is_default", ("account", AutocompleteSelectFilter)]
    list_select_related = ["account"]
    search_fields = ["uid", "name", "ipv4_network"]
    may_add = ("name", "ipv4_network", "gateway", "bridge", "dns", "is_default", "account")
    may_edit = ("name", "dns")
    autocomplete_fields = ["account"]
    fields = [
        "uid",
        "name",
        "ipv4_network",
        "gateway",
        "bridge",
        "dns",
        "is_default",
        "leased",
        "account_link",
        "created_at",
        "see_also",
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).annotate(lease_count=Count("leases"))

    @display(description="addresses leased")
    def leased(self, network: Network) -> str:
        return f"{network.lease_count} of {usable_addresses(network)}"


@admin.register(Lease)
class LeaseAdmin(RowAdmin):
    list_display = ["ipv4", "mac", "hostname", "holder_link", "network_link", "created_at"]
    list_filter = [("network", AutocompleteSelectFilter)]
    list_select_related = ["network"]
    search_fields = ["ipv4", "mac", "hostname", "holder"]
    fields = ["ipv4", "mac", "hostname", "holder_link", "network_link", "created_at"]

    holder_link = uid_link("holder")
    network_link = uid_link("network")
