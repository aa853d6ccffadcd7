"""Volumes: images, backup objects and where they are stored, and the volumes made from them."""

from django.apps import AppConfig


class VolumesConfig(AppConfig):
    name = "volumes"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from operations import register
        from volumes import explaining, models, tasks, uploads, verbs  # noqa: F401 - importing tasks registers them

        register.register_noun(models.Volume, verbs.VOLUME)
        register.register_noun(models.BackupObject, [])
        register.register_noun(models.Image, verbs.IMAGE)
        register.explainers["wmi"] = explaining.IMAGE
        register.explainers["bo"] = explaining.BACKUP_OBJECT
        uploads.register_chore()
