"""Steps on strays: look at one closely and write its rows, remove a guest, discard a disk."""

from __future__ import annotations

from dataclasses import asdict

from accounts.models import Account
from core.errors import Permanent
from hypervisor import local, neighbours
from hypervisor.contract import GuestSpec, Hypervisor, Observed, SeedSpec
from hypervisor.models import Stray, StrayKind
from instances import adoption
from instances.adoption import Found
from instances.models import Instance
from operations.run import StepRun
from operations.task import step_task
from volumes import orphans
from volumes.models import Image


def _stray(run: StepRun) -> Stray:
    return Stray.objects.select_related("node").get(uid=run.subject_uid)


@step_task("instances.adopt_stray")
def adopt_stray(run: StepRun) -> dict:
    """Look at the stray once more, closely. `params`: account, image. Its rows are written as the step settles."""
    stray = _stray(run)
    run.checkpoint()
    if stray.kind == StrayKind.VOLUME:
        return asdict(Found(disks=[_whole(stray, stray.name)]))
    driver = local.driver(stray.hypervisor)
    look, made = driver.observe(stray.name), driver.describe(stray.name)
    if look.state is Observed.ABSENT or made is None:
        raise Permanent(f"{stray.name} is not on {stray.node} any more", advice="See `vdc node strays`.")
    if not made.disks:
        raise Permanent(
            f"the disk of {stray.name} is not on {stray.node} any more", advice="It can be put into quarantine only."
        )
    nics = [{**asdict(nic), "ipv4": nic.ipv4 or neighbours.ipv4_of(nic.mac, nic.bridge)} for nic in made.nics]
    disks = [_whole(stray, disk.uid, disk.size_bytes, disk.format) for disk in made.disks]
    return asdict(Found(disks, made.vcpus, made.memory_mib, tuple(nics), look.state.value, look.reason))


@adopt_stray.settles
def write_rows(run: StepRun, result: dict) -> None:
    account = Account.objects.get(uid=run.params["account"])
    image = Image.objects.filter(uid=run.params["image"]).first()
    adoption.write(_stray(run), account, image, Found(**result))


def _whole(stray: Stray, uid: str, size_bytes: int = 0, disk_format: str = "") -> dict:
    """The disk, proved by its receipt; those of fake guests are promises."""
    if stray.hypervisor != Hypervisor.FAKE:
        file = local.volumes(stray.hypervisor).present(uid)
        if file is None:
            raise Permanent(
                f"the disk {uid} of {stray.name} is not among the volumes of {stray.node}, or has no good receipt",
                advice="Nothing proves that it is whole and ours. The guest was left as it is.",
            )
        size_bytes, disk_format = file.size_bytes, file.format
    return {"uid": uid, "format": disk_format, "size_bytes": size_bytes}


@step_task("instances.remove_stray")
def remove_stray(run: StepRun) -> dict:
    """Leave nothing of the guest on its node but its disks, unless it is an instance of the node by now."""
    stray = _stray(run)
    if Instance.objects.on_node(stray.node).filter(uid=stray.name).exists():
        raise Permanent(
            f"{stray.name} is an instance of {stray.node}, no stray; its guest was left alone",
            advice="Terminate the instance if nobody wants it.",
        )
    spec = GuestSpec(
        uid=stray.name,
        slot=0,
        hypervisor=Hypervisor(stray.hypervisor),
        arch=stray.node.arch,
        vcpus=0,
        memory_mib=0,
        disks=(),
        nics=(),
        seed=SeedSpec(stray.name, stray.name),
        console_log=str(local.console_log(stray.name)),
    )
    seen = local.driver(stray.hypervisor).ensure_absent(spec, run)
    return {"observed": seen.state.value, "reason": seen.reason}


@step_task("instances.discard_stray_disk")
def discard_stray_disk(run: StepRun) -> dict:
    """Move a disk of the stray to the trash of its node, unless a volume owns it. `params`: disk, owner, reason."""
    stray, disk = _stray(run), run.params["disk"]
    run.checkpoint()
    if orphans.is_owned(stray.node, disk):
        return {"said": f"{disk} belongs to a volume and was left alone"}
    if stray.hypervisor == Hypervisor.FAKE:
        return {"said": f"{disk} was promised only; nothing was on disk"}
    entry = local.trash().discard(
        disk, owner=run.params["owner"], reason=run.params["reason"], operation=run.operation.uid
    )
    return {"said": f"{disk} was moved to the trash ({entry.name})" if entry else f"{disk} was not on disk"}
