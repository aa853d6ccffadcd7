"""GET /metrics: everything that is counted and measured, for Prometheus; operators only, for it spans all accounts.

Nothing is kept in the process: every web process tells the same, and nothing starts anew with it.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import version

import django
from django.http import HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from rest_framework.request import Request
from rest_framework.views import APIView

import hypervisor.metrics
import operations.metrics
import volumes.metrics
from accounts.permissions import ByRole, OperatorOnly


class Rows(Collector):
    """Asks every room that has something to tell."""

    def collect(self) -> Iterator[Metric]:
        known = {"version": version("vdc"), "python": platform.python_version(), "django": django.__version__}
        yield InfoMetricFamily("vdc_build", "What runs here.", value=known)
        yield from operations.metrics.families()
        yield from hypervisor.metrics.families()
        yield from volumes.metrics.families()


class MetricsView(APIView):
    permission_classes = [ByRole, OperatorOnly]

    def get(self, request: Request) -> HttpResponse:
        registry = CollectorRegistry()
        registry.register(Rows())
        return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
