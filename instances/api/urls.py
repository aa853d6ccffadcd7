"""Routes of instances: one per offered verb of the table, DELETE = terminate."""

from __future__ import annotations

from django.urls import path

from instances.api.views import InstanceViewSet
from instances.verbs import INSTANCE

_one = InstanceViewSet.as_view({"get": "retrieve", "delete": "terminate"})
_verbs = [
    path(f"instances/<str:uid>/{verb.name}", InstanceViewSet.as_view({"post": verb.name}), name=verb.full_name)
    for verb in INSTANCE
    if verb.offered
]

urlpatterns = [
    path("instances", InstanceViewSet.as_view({"get": "list", "post": "create"}), name="instances"),
    path("instances/<str:uid>", _one, name="instance"),
    path("instances/<str:uid>/console-log", InstanceViewSet.as_view({"get": "console_log"}), name="console-log"),
    *_verbs,
]
