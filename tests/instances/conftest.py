"""One fake node, a network, an image, and a hypervisor in a dictionary: instances without libvirt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from hypervisor import local
from hypervisor.models import Node
from instances import services
from instances.models import Instance
from operations.models import Operation
from tests import datacenter
from tests.ringing import _only_rows, bells, committed_db, in_threads, quick  # noqa: F401 - fixtures
from volumes.models import Image


@dataclass
class World:
    node: Node
    image: Image
    hypervisor: datacenter.Hypervisor

    def launch(self, **asked: object) -> tuple[Instance, Operation]:
        return services.launch_instance(datacenter.account(), image=self.image, requested_by="the tests", **asked)


@pytest.fixture
def world(committed_db: None, monkeypatch: pytest.MonkeyPatch, tmp_path) -> World:  # noqa: F811
    hypervisor = datacenter.Hypervisor()
    monkeypatch.setattr(local, "driver", lambda name: hypervisor)
    monkeypatch.setattr(local, "ensure_network", lambda spec, watch: None)
    node = datacenter.node()
    datacenter.network()
    return World(node, datacenter.image(node), hypervisor)


@pytest.fixture
def running(world: World, bells) -> Callable[..., Instance]:  # noqa: F811
    """`running()`: an instance whose launch is done."""

    def launched(**asked: object) -> Instance:
        instance, _ = world.launch(**asked)
        bells.answer()
        instance.refresh_from_db()
        assert instance.state == "running"
        return instance

    return launched
