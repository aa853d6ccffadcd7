"""The one row that each task saves."""

from django.db import models


class Done(models.Model):
    """One task of one chain was done."""

    chain = models.PositiveIntegerField()
    position = models.PositiveSmallIntegerField()
    at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.chain}.{self.position}"
