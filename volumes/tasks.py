"""Steps that fetch images, build volumes, and take disks away."""

from __future__ import annotations

from dataclasses import asdict

from core.claim import claim
from core.errors import Permanent
from hypervisor import local, rooms
from hypervisor.backup_store import BackupStore
from hypervisor.contract import Hypervisor, SourceSpec
from operations import engine
from operations.run import StepRun
from operations.task import step_task
from volumes.models import BackupObject, Image, Volume
from volumes.specs import SOURCE_COLUMNS, VOLUME_COLUMNS, source_spec, volume_spec
from volumes.states import ImageState, VolumeState


def _image(run: StepRun) -> Image:
    rows = Image.objects.select_related("backup_object__storage__node").only("uid", *SOURCE_COLUMNS)
    return rows.get(uid=run.params["image"])


def _volume(run: StepRun) -> Volume:
    return Volume.objects.select_related("node", "account", "image__backup_object").get(uid=run.params["volume"])


@step_task("volumes.fetch_image", whole=True)
def fetch_image(run: StepRun) -> dict:
    """Have the verified raw image in this node's store. `params`: image, hypervisor."""
    image = _image(run)
    if not image.backup_object.sha256:
        raise Permanent(
            f"The image {image.uid} has no digest, so nothing could be verified.", advice="Import it again."
        )
    entry = local.images(run.params["hypervisor"]).fetch(source_spec(image), run, tag=run.tag)
    return asdict(entry)


@step_task("volumes.build_volume", whole=True)
def build_volume(run: StepRun) -> dict:
    """Have the volume's file, a clone of the fetched image. `params`: volume, hypervisor."""
    volume = Volume.objects.select_related("image__backup_object").only(*VOLUME_COLUMNS).get(uid=run.params["volume"])
    file = local.volumes(run.params["hypervisor"]).build(volume_spec(volume), run, tag=run.tag)
    return asdict(file)


@build_volume.undoes
def discard_built(run: StepRun) -> str:
    return _discard(run)


@build_volume.when_undone
def built_is_gone(run: StepRun) -> None:
    mark_deleted(_volume(run))


@step_task("volumes.discard_volume")
def discard_volume(run: StepRun) -> dict:
    """Move the volume's file to the trash of its node. `params`: volume, hypervisor, reason."""
    return {"said": _discard(run)}


@discard_volume.settles
def volume_is_gone(run: StepRun, result: dict) -> None:
    mark_deleted(_volume(run))


def _discard(run: StepRun) -> str:
    volume = _volume(run)
    if run.params["hypervisor"] == Hypervisor.FAKE:
        return f"{volume.uid} was promised only; nothing was on disk"
    entry = local.trash().discard(
        volume.uid,
        owner=volume.account.uid,
        reason=run.params.get("reason") or run.operation.cancel_reason or run.operation.verb,
        operation=run.operation.uid,
    )
    if entry is None:
        return f"{volume.uid} was not on disk"
    if entry.expires_at == entry.discarded_at:
        return f"{volume.uid} was deleted from {run.step.node}, which keeps no trash"
    return f"{volume.uid} was moved to the trash of {run.step.node} ({entry.name}), kept until {entry.expires_at}"


def mark_deleted(volume: Volume) -> None:
    """The disk is gone: state, and the room that it took, once."""
    engine.move([[Volume.KIND, volume.uid, VolumeState.DELETED]])
    give_back_room(volume)


def give_back_room(volume: Volume) -> None:
    """Its bytes count as taken no more."""
    if claim(Volume.objects.filter(pk=volume.pk, room_held=True), room_held=False):
        rooms.give_back(volume.node, disk_bytes=volume.size_bytes)


@step_task("volumes.restore_volume")
def restore_volume(run: StepRun) -> dict:
    """Move the volume's file back from the trash of this node. `params`: volume, entry, hypervisor."""
    volume = _volume(run)
    run.checkpoint()
    if run.params["hypervisor"] == Hypervisor.FAKE:
        return {"said": f"{volume.uid} was promised only; nothing was in the trash"}
    entry = local.trash().restore(run.params["entry"])
    found = local.volumes(run.params["hypervisor"]).present(volume.uid)
    if found is None and entry is None:
        raise Permanent(
            f"{run.params['entry']} is not in the trash of {run.step.node} any more",
            advice="It has expired, or its space was needed; the events of the node say which.",
        )
    if found is None:
        raise Permanent(f"{volume.uid} came out of the trash without a good receipt: nothing proves that it is whole")
    return {"said": f"{volume.uid} is back at {found.path}", "size_bytes": found.size_bytes}


@restore_volume.undoes
def discard_restored(run: StepRun) -> str:
    volume = _volume(run)
    if run.params["hypervisor"] == Hypervisor.FAKE:
        return f"{volume.uid} was promised only"
    entry = local.trash().take_again(
        run.params["entry"],
        uid=volume.uid,
        owner=volume.account.uid,
        reason="its restoring was undone",
        operation=run.operation.uid,
    )
    return f"{volume.uid} is in the trash of {run.step.node} ({entry.name})" if entry else f"{volume.uid} is nowhere"


@step_task("volumes.store_object", whole=True)
def store_object(run: StepRun) -> dict:
    """Bring the bytes behind `params["url"]` into the backup storage, as they are, inspected on the way."""
    stored = BackupObject.objects.get(uid=run.params["backup_object"])
    source = SourceSpec(
        url=run.params["url"],
        format=stored.format,
        sha256=run.params["sha256"],
        stored_size_bytes=None,
        raw_size_bytes=None,
        public_addresses_only=run.params["public_addresses_only"],
    )
    inspection = BackupStore(local.storage_dir()).fetch(stored.uid, source, run, tag=run.tag)
    return asdict(inspection)


@store_object.settles
def object_is_stored(run: StepRun, result: dict) -> None:
    BackupObject.objects.filter(uid=run.params["backup_object"]).update(
        size_bytes=result["stored_size_bytes"],
        raw_size_bytes=result["raw_size_bytes"],
        sha256=result["sha256"],
    )


@store_object.undoes
def drop_object(run: StepRun) -> str:
    uid = run.params["backup_object"]
    was_there = BackupStore(local.storage_dir()).remove(uid)
    return f"{uid} was removed from the backup storage" if was_there else f"{uid} was not in the backup storage"


@store_object.when_undone
def object_is_gone(run: StepRun) -> None:
    """An import that was cancelled at its last word had said already that the object is available."""
    engine.move([[BackupObject.KIND, run.params["backup_object"], ImageState.ERROR]])


@step_task("volumes.publish_image")
def publish_image(run: StepRun) -> dict:
    """The last word of an import: image and backup object become available together, by the step's `settles`."""
    image = _image(run)
    if not image.backup_object.sha256:
        raise Permanent(f"{image.backup_object.uid} was not stored.", advice="Import the image again.")
    return {"image": image.uid, "sha256": image.backup_object.sha256}
