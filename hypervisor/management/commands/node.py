"""`manage.py node join|observe|lane|drain`: what this machine does as a node."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from setproctitle import setproctitle

from core.errors import WorkError
from core.logs import identify
from hypervisor import joining, listeners, local
from hypervisor.housekeeping import keep_house
from hypervisor.models import Node
from hypervisor.observer import Observer
from hypervisor.opening import stop_on_signal, wait_for_open_lanes
from operations.lane import serve
from operations.locks import hold_for_life
from operations.recovery import take_over

BULK_NICENESS = 10  # copies get what is left of the CPUs, and take nothing from what somebody waits for


class Command(BaseCommand):
    help = "Make this machine a node, and run the processes of a node."
    requires_system_checks = ()  # `make check` does; here they would load every view and page for nothing

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="command", required=True)
        join = commands.add_parser("join", help="probe this machine and write its row; may be run again")
        join.add_argument("--kernel", type=Path, help="a Linux kernel to try KVM with")
        commands.add_parser("observe", help="run the observer until SIGTERM")
        lane = commands.add_parser("lane", help="run the worker of one lane until SIGTERM")
        lane.add_argument("lane", choices=["ops", "bulk"])
        commands.add_parser("drain", help="power off every guest in order; what they are wanted to be stays")

    def handle(self, *args: Any, command: str, **options: Any) -> None:
        try:
            getattr(self, f"_{command}")(options)
        except WorkError as fault:
            raise CommandError(" ".join(filter(None, [fault.message + ".", fault.advice]))) from fault

    def _join(self, options: dict[str, Any]) -> None:
        node = joining.join(options["kernel"])
        self.stdout.write(
            f"{node}: {', '.join(node.hypervisors) or 'no hypervisor'}; offers {node.vcpus} vCPUs, "
            f"{node.memory_mib} MiB of memory, {node.disk_bytes / 2**30:.1f} GiB of disk"
        )
        for warning in node.warnings:
            self.stdout.write(self.style.WARNING(f"warning: {warning}"))

    def _observe(self, options: dict[str, Any]) -> None:
        node = local.this_node()
        setproctitle(f"vdc observer {node.uid}")
        identify(node=node.uid)
        lock = hold_for_life(f"{node.uid}.observer")
        Observer(node, stop_on_signal()).run()
        os.close(lock)

    def _lane(self, options: dict[str, Any]) -> None:
        node, lane = local.this_node(), options["lane"]
        lock = hold_for_life(f"{node.uid}.{lane}")
        if wait_for_open_lanes(Node.objects.filter(pk=node.pk)):
            take_over([node.uid], lane)
            if lane == "bulk":
                os.nice(BULK_NICENESS)
                keep_house(node)
            serve(lane, [node.uid])
        os.close(lock)

    def _drain(self, options: dict[str, Any]) -> None:
        node = local.this_node()
        for drain in listeners.on_drain:
            for sentence in drain(node):
                self.stdout.write(sentence)
