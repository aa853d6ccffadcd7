"""`manage.py fleet join|observe|lane`: nodes with fake guests, as many as wanted, all served by this machine."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from setproctitle import setproctitle

from hypervisor import fleet
from hypervisor.opening import stop_on_signal, wait_for_open_lanes
from operations.lane import serve
from operations.locks import hold_for_life
from operations.recovery import take_over


class Command(BaseCommand):
    help = "Nodes with fake guests, for scale and for trying out: make them, and run their processes."
    requires_system_checks = ()  # `make check` does; here they would load every view and page for nothing

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        join = commands.add_parser("join", help="have at least so many of them")
        join.add_argument("count", type=int)
        commands.add_parser("observe", help="run the observer of all of them until SIGTERM")
        lane = commands.add_parser("lane", help="run the worker of one lane of all of them until SIGTERM")
        lane.add_argument("lane", choices=["ops", "bulk"])

    def handle(self, *args: Any, command: str, **options: Any) -> None:
        getattr(self, f"_{command}")(options)

    def _join(self, options: dict[str, Any]) -> None:
        self.stdout.write(f"the fleet has {len(fleet.join(options['count']))} nodes")

    def _observe(self, options: dict[str, Any]) -> None:
        setproctitle("vdc fleet observer")
        lock = hold_for_life(f"{settings.STACK['node_name']}.fleet.observer")
        fleet.FleetObserver(stop_on_signal()).run()
        os.close(lock)

    def _lane(self, options: dict[str, Any]) -> None:
        lane = options["lane"]
        lock = hold_for_life(f"{settings.STACK['node_name']}.fleet.{lane}")
        if wait_for_open_lanes(fleet.nodes()):
            nodes = [node.uid for node in fleet.nodes()]
            take_over(nodes, lane)
            serve(lane, nodes)
        os.close(lock)
