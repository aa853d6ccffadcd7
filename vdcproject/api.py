"""The one router of the API: every noun's routes, below /api/v1/."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path
from rest_framework.routers import SimpleRouter

from accounts.api.views import AccountView, SshKeyPairViewSet, TokenViewSet

router = SimpleRouter(trailing_slash=False)
router.register("tokens", TokenViewSet, basename="token")
router.register("ssh-key-pairs", SshKeyPairViewSet, basename="ssh-key-pair")

urlpatterns: list[URLPattern | URLResolver] = [
    path("account", AccountView.as_view({"get": "retrieve"}), name="account"),
    *router.urls,
]
