"""What bad input gets from a living data center: a clear sentence, and nothing half-made left behind."""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hypervisor.object_server import ObjectServer
from tests.live.data_center import Api, DataCenter, until

pytestmark = pytest.mark.live

CONTENT = gzip.compress(os.urandom(300_000), mtime=0)
FACTS = {"name": "bad", "hypervisor": "kvm"}


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with ObjectServer() as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_half_made(data_center: DataCenter) -> Iterator[None]:
    """No row is left on its way, and no file is there but those of available objects."""
    files, node = _stored_files(data_center), _node_files(data_center)
    instances = _live_instances(data_center)
    room = _room(data_center)
    yield
    until(lambda: data_center.sql("SELECT * FROM operations_operation WHERE ended_at IS NULL") == [], "all to end")
    for table in ("backupobject", "image", "volume"):
        moving = data_center.sql(
            f"SELECT uid, state FROM volumes_{table} WHERE state IN ('creating', 'deleting', 'scheduling')"  # noqa: S608
        )
        assert moving == []
    available = {row["id"] for row in data_center.api.items("backup-objects") if row["state"] == "available"}
    assert {name.partition(".")[0] for name in _stored_files(data_center) - files} <= available
    assert _node_files(data_center) == node
    assert _live_instances(data_center) == instances
    assert _room(data_center) == room


def _live_instances(data_center: DataCenter) -> set[str]:
    return {row["id"] for row in data_center.api.items("instances") if row["state"] != "terminated"}


def _stored_files(data_center: DataCenter) -> set[str]:
    return {path.name for path in (data_center.stack.state_dir / "storage").iterdir()}


def _node_files(data_center: DataCenter) -> set[str]:
    """What is in the folders of the node, but for lock files, which stay."""
    folders = [data_center.node_dir / name for name in ("images", "volumes", "guests", "mounts", "consoles")]
    return {path.name for folder in folders for path in folder.iterdir() if path.suffix != ".lock"}


def _room(data_center: DataCenter) -> tuple[int, ...]:
    node = data_center.node()
    (network,) = data_center.api.items("networks")
    return (node["vcpus_used"], node["memory_mib_used"], node["disk_bytes_used"], network["leases_used"])


def failed_import(data_center: DataCenter, url: str, **wish: Any) -> dict[str, Any]:
    """Import from a URL, which must be accepted and then fail; returns the story."""
    asked = data_center.api.post("images", {**FACTS, "url": url, "format": "gz", **wish})
    story = data_center.ended(asked["operation"]["id"])
    assert story["state"] == "failed"
    image = data_center.api.get(f"images/{asked['id']}")
    assert image["state"] == "error"
    assert image["error"]["operation"] == story["id"]
    assert data_center.api.get(f"backup-objects/{image['backup_object']}")["state"] == "error"
    refused = data_center.api.ask("POST", "instances", json={"image": asked["id"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "image_not_available")
    return story


def test_a_url_where_nothing_is(data_center: DataCenter, server: ObjectServer):
    story = failed_import(data_center, server.url("/nothing.gz"))
    assert "404" in story["error"]["message"]
    assert [attempt["outcome"] for attempt in story["steps"][0]["attempts"]] == ["failed"]


def test_a_host_where_nobody_listens_is_tried_again_and_then_given_up(data_center: DataCenter):
    with socket.create_server(("127.0.0.1", 0)) as line:
        url = f"http://127.0.0.1:{line.getsockname()[1]}/image.gz"
    story = failed_import(data_center, url)
    assert "refused the connection" in story["error"]["message"]
    outcomes = [attempt["outcome"] for attempt in story["steps"][0]["attempts"]]
    assert outcomes == ["retried"] * 4 + ["failed"]


def test_a_wrong_checksum(data_center: DataCenter, server: ObjectServer):
    url = server.serve("/image.gz", CONTENT)
    story = failed_import(data_center, url, sha256="0" * 64)
    assert hashlib.sha256(CONTENT).hexdigest() in story["error"]["message"]
    assert "0" * 64 in story["error"]["message"]


def test_a_truncated_gzip_behind_a_url(data_center: DataCenter, server: ObjectServer):
    story = failed_import(data_center, server.serve("/image.gz", CONTENT[: len(CONTENT) // 2]))
    assert "ends" in story["error"]["message"] or "truncated" in story["error"]["message"]


def test_a_file_that_is_no_gzip(data_center: DataCenter, server: ObjectServer):
    story = failed_import(data_center, server.serve("/image.gz", b"<html>not found</html>" * 100))
    assert "gzip" in story["error"]["message"]


def upload(api: Api, content: bytes, **wish: Any) -> tuple[str, Any]:
    stored = api.post("backup-objects", {"format": "gz", **wish})["id"]
    return stored, api.ask("PUT", f"backup-objects/{stored}/content", content=content)


def test_a_truncated_gzip_upload_is_refused_and_may_be_sent_again(data_center: DataCenter):
    stored, answer = upload(data_center.tenant, CONTENT[:-20])
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_content")
    row = data_center.tenant.get(f"backup-objects/{stored}")
    assert (row["state"], row["size_bytes"], row["sha256"]) == ("pending", None, "")
    assert not any(name.startswith(stored) for name in _stored_files(data_center))
    again = data_center.tenant.ask("PUT", f"backup-objects/{stored}/content", content=CONTENT)
    assert (again.status_code, again.json()["state"]) == (200, "available")


def test_an_upload_of_another_size_or_digest_than_announced(data_center: DataCenter):
    for wish in ({"size_bytes": len(CONTENT) + 1}, {"sha256": "0" * 64}):
        stored, answer = upload(data_center.tenant, CONTENT, **wish)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_content")
        assert data_center.tenant.get(f"backup-objects/{stored}")["state"] == "pending"


def test_a_tenant_imports_from_no_address_of_this_machine(data_center: DataCenter, server: ObjectServer):
    url = server.serve("/image.gz", CONTENT)
    elsewhere = server.url("/leads-here.gz", host="127.1.2.3")
    for bad in (url, url.replace("127.0.0.1", "localhost"), elsewhere, "http://169.254.169.254/latest"):
        answer = data_center.tenant.ask("POST", "images", json={**FACTS, "url": bad, "format": "gz"})
        if answer.status_code == 202:
            story = data_center.ended(answer.json()["operation"]["id"])
            assert story["state"] == "failed"
            assert "address" in story["error"]["message"]
            assert [attempt["outcome"] for attempt in story["steps"][0]["attempts"]] == ["failed"]
        else:
            assert answer.status_code == 400
    for bad in ("file:///etc/passwd", "ftp://example.org/image.gz", "http://user:secret@example.org/image.gz"):
        refused = data_center.tenant.ask("POST", "images", json={**FACTS, "url": bad, "format": "gz"})
        assert (refused.status_code, refused.json()["field"]) == (400, "url")
    assert server.seen == []


def test_a_volume_bigger_than_what_the_node_offers_is_refused_by_its_filter(data_center: DataCenter):
    image = data_center.api.get(f"images/{data_center.images['lxc']}")
    body = {"image": image["id"], "memory_mib": 64, "volume_size_bytes": data_center.node()["disk_bytes"] + 1}
    refused = data_center.api.ask("POST", "instances", json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "no_room")
    assert "'disk'" in refused.json()["detail"]
    too_small = data_center.api.ask("POST", "instances", json={**body, "volume_size_bytes": image["size_bytes"] - 1})
    assert (too_small.status_code, too_small.json()["field"]) == (400, "volume_size_bytes")


def test_an_image_bigger_than_the_free_disk_fails_with_the_numbers(data_center: DataCenter, fresh_image: str):
    """The node offers room, but its file system has none left: the image store is put on a small one."""
    images = data_center.node_dir / "images"
    data_center.run_inside("mount", "-t", "tmpfs", "-o", "size=80m,mode=711", "tmpfs", str(images))
    try:
        asked = data_center.create("lxc", "too-big", image=fresh_image)
        story = data_center.ended(asked["operation"]["id"])
        assert story["state"] == "failed"
        assert str(images) in story["error"]["message"]
        assert "bytes free" in story["error"]["message"]
        row = data_center.instance(asked["id"])
        assert (row["state"], row["error"]["operation"]) == ("error", story["id"])
        assert row["allowed_verbs"] == ["retry", "terminate"]
        data_center.terminate(asked["id"])
    finally:
        data_center.run_inside("umount", str(images))
