"""Which door answers which path."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from core.health import healthz
from vdcproject.metrics import MetricsView
from vdcproject.readiness import readyz

urlpatterns = [
    path("healthz", healthz),
    path("readyz", readyz),
    path("metrics", MetricsView.as_view()),
    path("api/v1/", include("vdcproject.api")),
    path("admin/", admin.site.urls),
]

handler400 = "core.problem.bad_request"
handler403 = "core.problem.forbidden"
handler404 = "core.problem.not_found"
handler500 = "core.problem.server_error"
