"""Filters of the list of operations."""

import django_filters

from operations.models import Operation
from operations.states import OperationState


class OperationFilter(django_filters.FilterSet):
    subject = django_filters.CharFilter(field_name="subject_uid")
    state = django_filters.ChoiceFilter(choices=OperationState.choices)

    class Meta:
        model = Operation
        fields: list[str] = []
