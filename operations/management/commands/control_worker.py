"""`manage.py control_worker`: serve the steps that belong to no node."""

from django.core.management.base import BaseCommand

from operations.lane import serve


class Command(BaseCommand):
    help = "Serve the control lane: steps that belong to no node."
    requires_system_checks = ()  # `make check` does; here they would load every view and page for nothing

    def handle(self, *args, **options):
        serve("control", [""])
