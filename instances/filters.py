"""Filters of the list of instances."""

import django_filters

from instances.models import Instance
from instances.states import InstanceState


class InstanceFilter(django_filters.FilterSet):
    state = django_filters.ChoiceFilter(choices=InstanceState.choices)

    class Meta:
        model = Instance
        fields: list[str] = []
