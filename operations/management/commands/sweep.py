"""`manage.py sweep`: run the sweep until SIGTERM."""

import signal
import threading

from django.core.management.base import BaseCommand

from operations.sweep import sweep


class Command(BaseCommand):
    help = "Watch over everything in motion: ring again, take over from lost workers, mark silent nodes."
    requires_system_checks = ()  # `make check` does; here they would load every view and page for nothing

    def handle(self, *args, **options):
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        signal.signal(signal.SIGINT, lambda *_: stop.set())
        sweep(stop)
