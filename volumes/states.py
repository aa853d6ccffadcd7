"""The automata of volumes, images and backup objects.

volume          scheduling ──► pending ──► creating ──► attached ──► deleting ──► deleted
                deleted ──► creating ──► available     while it lies in the trash of its node
image           pending ──► creating ──► available
backup object   pending ──► creating ──► available
                each of them ──► error, with the reason
"""

from django.db import models


class VolumeState(models.TextChoices):
    SCHEDULING = "scheduling"
    PENDING = "pending"
    CREATING = "creating"
    AVAILABLE = "available"
    ATTACHED = "attached"
    DELETING = "deleting"
    DELETED = "deleted"
    ERROR = "error"


class ImageState(models.TextChoices):
    PENDING = "pending"
    CREATING = "creating"
    AVAILABLE = "available"
    ERROR = "error"
