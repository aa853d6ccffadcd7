"""The base of every view of the API: rows by their public id, and no query parameter that means nothing."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.viewsets import GenericViewSet

from core.errors import Invalid


class ApiViewSet(GenericViewSet):
    """A noun sets `queryset` or `get_queryset`, `serializer_class`, and where needed:

    `filterset_class`        filters of its list (django-filter); their names become known parameters
    `query_parameters`       {action: names} of further parameters, for example {"console_log": {"last_bytes"}}
    """

    lookup_field = "uid"
    lookup_url_kwarg = "uid"
    lookup_value_regex = "[^/]+"
    filterset_class: Any = None
    query_parameters: dict[str, set[str]] = {}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.refuse_unknown_parameters(request)

    def known_parameters(self) -> set[str]:
        """The query parameters that the current action understands."""
        known = set(self.query_parameters.get(self.action, ()))
        if self.action == "list":
            known |= self.pagination_class.parameters if self.pagination_class else set()
            known |= set(self.filterset_class.base_filters) if self.filterset_class else set()
        return known

    def refuse_unknown_parameters(self, request: Request) -> None:
        known = self.known_parameters()
        for name in request.query_params:
            if name not in known:
                takes = f"takes {', '.join(sorted(known))}" if known else "takes none"
                raise Invalid(f"Unknown query parameter {name!r}; this {takes}.", code="unknown_parameter", field=name)
