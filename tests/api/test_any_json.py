"""Whatever JSON somebody thinks of: an answer, never an error of ours."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.models import Role
from instances.api.serializers import LaunchInput, PoweroffInput
from tests.api import world
from tests.api.checks import problem
from volumes.api.serializers import BackupObjectInput, ImageInput

pytestmark = pytest.mark.django_db

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=8
)
sizes = st.sampled_from([0, 1, 128, 2**31, 2**32, 2**63, 2**64, -1, "1", 1.0, 1e300])
words = st.sampled_from(
    ["web", "kvm", "lxc", "raw", "gz", "", "\x00", "http://example.com/a.gz", "file:///etc/passwd", "http://["]
)


def bodies(serializer: type, known: st.SearchStrategy) -> st.SearchStrategy:
    """Any JSON at all, and objects of known fields with values that are nearly right."""
    fields = st.sampled_from(sorted(serializer().fields)) | st.text(max_size=8)
    return values | st.dictionaries(fields, known | sizes | words | values, max_size=6)


def answers(client, path: str, body: object) -> None:
    answer = client.generic("POST", path, json.dumps(body), content_type="application/json")
    assert answer.status_code < 500, answer.content
    if answer.status_code >= 400:
        problem(answer)
    else:
        assert answer.status_code in (201, 202)


often = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def world_of(caller, ours, theirs, node):
    """(a member's client, ids worth naming)."""
    rows = [world.image(ours), world.image(theirs), world.ssh_key_pair(ours), world.backup_object(ours), node]
    return caller(ours, Role.MEMBER).client, st.sampled_from([row.uid for row in rows]), rows[0]


@often
@given(data=st.data())
def test_post_instances_never_breaks(world_of, data):
    client, uids, image = world_of
    body = data.draw(bodies(LaunchInput, uids | st.lists(uids, max_size=2)))
    if isinstance(body, dict) and data.draw(st.booleans()):
        body["image"] = image.uid  # or most would end at this field
    answers(client, "/api/v1/instances", body)


@often
@given(data=st.data())
def test_post_images_never_breaks(world_of, data):
    client, uids, _ = world_of
    answers(client, "/api/v1/images", data.draw(bodies(ImageInput, uids)))


@often
@given(data=st.data())
def test_post_backup_objects_never_breaks(world_of, data):
    client, uids, _ = world_of
    answers(client, "/api/v1/backup-objects", data.draw(bodies(BackupObjectInput, uids)))


@often
@given(data=st.data())
def test_poweroff_never_breaks(world_of, ours, data):
    client, uids, image = world_of
    instance = world.instance(ours, image=image)
    answers(client, f"/api/v1/instances/{instance.uid}/poweroff", data.draw(bodies(PoweroffInput, uids)))
