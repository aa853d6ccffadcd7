"""The one router of the API: every noun's routes, below /api/v1/."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path
from rest_framework.routers import SimpleRouter

from accounts.api.views import AccountView, SshKeyPairViewSet, TokenViewSet
from hypervisor.api.views import NodeViewSet
from instances.api.strays import StrayViewSet
from networks.api.views import NetworkViewSet
from operations.api.explain import ExplainViewSet
from operations.api.views import OperationViewSet
from volumes.api.trash import TrashViewSet
from volumes.api.views import BackupObjectViewSet, ImageViewSet, VolumeViewSet

router = SimpleRouter(trailing_slash=False)
router.register("tokens", TokenViewSet, basename="token")
router.register("ssh-key-pairs", SshKeyPairViewSet, basename="ssh-key-pair")
router.register("nodes", NodeViewSet, basename="node")
router.register("operations", OperationViewSet, basename="operation")
router.register("networks", NetworkViewSet, basename="network")
router.register("volumes", VolumeViewSet, basename="volume")
router.register("backup-objects", BackupObjectViewSet, basename="backup-object")
router.register("images", ImageViewSet, basename="image")

urlpatterns: list[URLPattern | URLResolver] = [
    path("account", AccountView.as_view({"get": "retrieve"}), name="account"),
    path(
        "backup-objects/<str:uid>/content",
        BackupObjectViewSet.as_view({"put": "content"}),
        name="backup-object-content",
    ),
    path("nodes/<str:uid>/strays", StrayViewSet.as_view({"get": "strays"}), name="strays"),
    path("nodes/<str:uid>/strays/<str:name>", StrayViewSet.as_view({"get": "stray"}), name="stray"),
    path("nodes/<str:uid>/strays/<str:name>/adopt", StrayViewSet.as_view({"post": "adopt"}), name="adopt-stray"),
    path(
        "nodes/<str:uid>/strays/<str:name>/quarantine",
        StrayViewSet.as_view({"post": "quarantine"}),
        name="quarantine-stray",
    ),
    path("nodes/<str:uid>/trash", TrashViewSet.as_view({"get": "trash"}), name="trash"),
    path("nodes/<str:uid>/trash/<str:entry>", TrashViewSet.as_view({"delete": "delete"}), name="trash-entry"),
    path("nodes/<str:uid>/trash/<str:entry>/restore", TrashViewSet.as_view({"post": "restore"}), name="restore-volume"),
    path("explain/<str:uid>", ExplainViewSet.as_view({"get": "retrieve"}), name="explain"),
    path("", include("instances.api.urls")),
    *router.urls,
]
