"""The groundwork as a Django app: no models, only what must happen once per process."""

from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "core"
