"""Wiring only: settings, routes, the Celery app."""

from vdcproject.celery import app as celery_app

__all__ = ["celery_app"]
