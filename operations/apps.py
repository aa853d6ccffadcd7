"""Operations: the engine that turns verbs into steps and keeps their story."""

from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "operations"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from operations import canary  # noqa: F401 - its task is known to every worker
