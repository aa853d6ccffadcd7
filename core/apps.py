"""The groundwork as a Django app: no models, only what must happen once per process."""

from django.apps import AppConfig
from django.conf import settings

from core import logs
from core.database import use_deadlines


class CoreConfig(AppConfig):
    name = "core"

    def ready(self) -> None:
        use_deadlines(settings.PROCESS)
        if settings.PROCESS != "tool":
            logs.take_in_what_python_prints()
