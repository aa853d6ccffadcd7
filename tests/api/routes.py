"""Every route of the API, read from the URL conf itself: a new one is walked by the tests without being named."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from django.urls import get_resolver

BASE = "/api/v1/"
METHODS = ("get", "head", "post", "put", "patch", "delete", "options")


@dataclass(frozen=True)
class Route:
    """`template` is "instances/%(uid)s/poweroff"; `actions` maps the methods that it has to actions of `view`."""

    template: str
    actions: dict[str, str]
    view: type

    def __str__(self) -> str:
        return BASE + self.template.replace("%(uid)s", "<id>")

    @property
    def names_a_row(self) -> bool:
        return "%(uid)s" in self.template

    @property
    def lists(self) -> bool:
        return self.actions.get("get") == "list"

    def path(self, uid: str = "") -> str:
        """With this id; whatever else the route names, the path names something that is not there."""
        return BASE + self.template % defaultdict(lambda: "x-00000000", uid=uid)


def _routes() -> list[Route]:
    known = get_resolver("vdcproject.api").reverse_dict
    return [
        Route(template, callback.actions, callback.cls)
        for callback in known
        if callable(callback)
        for possibilities, *_ in known.getlist(callback)
        for template, _ in possibilities
    ]


ROUTES = sorted(_routes(), key=str)
