"""`manage.py node join|observe|lane|drain`: what this machine does as a node."""

from __future__ import annotations

import os
import signal
import threading
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from setproctitle import setproctitle

from core.errors import WorkError
from hypervisor import joining, listeners, local
from hypervisor.housekeeping import keep_house
from hypervisor.models import Node
from hypervisor.observer import BOOT_ID, Observer
from operations.lane import serve
from operations.locks import hold_for_life
from operations.recovery import take_over

LANES_LOOK_S = 0.5


class Command(BaseCommand):
    help = "Make this machine a node, and run the processes of a node."

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
        lock = hold_for_life(f"{node.uid}.observer")
        Observer(node, _stop_on_signal()).run()
        os.close(lock)

    def _lane(self, options: dict[str, Any]) -> None:
        node, lane = local.this_node(), options["lane"]
        lock = hold_for_life(f"{node.uid}.{lane}")
        if _wait_for_open_lanes(node):
            take_over(node.uid, lane)
            if lane == "bulk":
                keep_house(node)
            serve(node.uid, lane)
        os.close(lock)

    def _drain(self, options: dict[str, Any]) -> None:
        node = local.this_node()
        for drain in listeners.on_drain:
            for sentence in drain(node):
                self.stdout.write(sentence)


def _stop_on_signal() -> threading.Event:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    return stop


def _wait_for_open_lanes(node: Node) -> bool:
    """Wait until the observer has opened the lanes for this boot and start; False when told to end before that."""
    stop = _stop_on_signal()
    boot_id, start_id = BOOT_ID.read_text().strip(), settings.STACK["start_id"]
    while not stop.is_set():
        node.refresh_from_db()
        if (node.boot_id, node.start_id) == (boot_id, start_id):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            return True
        stop.wait(LANES_LOOK_S)
    return False
