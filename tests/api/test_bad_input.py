"""What bad input gets: a clear sentence that names the thing, and nothing half-made left behind."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from rest_framework.test import APIClient

from accounts.models import ApiToken, Role
from core.api.parsers import MOST_BYTES
from hypervisor.api.views import OfNodes
from hypervisor.models import Node, NodePulse, NodeStatus
from instances import services as instance_services
from instances.models import Instance
from networks.models import Lease, Network
from tests.api import world
from tests.api.checks import every_row, nothing_changes, problem, told
from tests.api.routes import ROUTES
from volumes.models import BackupStorage

pytestmark = pytest.mark.django_db
INSTANCES = "/api/v1/instances"
IMAGES = "/api/v1/images"
OBJECTS = "/api/v1/backup-objects"
KEYS = "/api/v1/ssh-key-pairs"
TOKENS = "/api/v1/tokens"


@pytest.fixture
def member(caller, ours) -> APIClient:
    return caller(ours, Role.MEMBER).client


@pytest.fixture
def operator(caller, ours, staff) -> APIClient:
    return caller(ours, Role.OWNER, operator=True, issued_by=staff).client


@pytest.fixture
def image(ours):
    return world.image(ours, min_memory_mib=64)


def refused(client: APIClient, path: str, body: Any, status: int, code: str, **expected: Any) -> dict:
    """POST it; the answer is this refusal and no table has changed."""
    with nothing_changes():
        answer = client.post(path, body)
    return told(answer, status, code, **expected)


# --- POST instances ----------------------------------------------------------------------------------------------


def test_an_unknown_image_is_named(member):
    refused(
        member, INSTANCES, {"image": "wmi-00000000"}, 404, "not_found", field="image", names=("image", "wmi-00000000")
    )


@pytest.mark.parametrize("uid", ["", " ", "\x00", "i-00000000", "../../etc", "WMI-1", "wmi-" + "a" * 240, 5, None, []])
def test_what_is_no_image_id_is_refused_at_that_field(member, uid):
    with nothing_changes():
        body = problem(member.post(INSTANCES, {"image": uid}))
    assert (body["status"], body["field"]) in ((400, "image"), (404, "image"))


def test_a_missing_image_is_asked_for(member):
    refused(member, INSTANCES, {}, 400, "invalid", field="image", names=("image",))


def test_someone_elses_private_image_is_not_there_and_a_public_one_is(member, theirs):
    private = world.image(theirs)
    refused(member, INSTANCES, {"image": private.uid}, 404, "not_found", field="image", names=(private.uid,))
    public = world.image(theirs, is_public=True)
    assert member.post(INSTANCES, {"image": public.uid}).status_code == 202


@pytest.mark.parametrize("state", ["pending", "creating", "error"])
def test_an_image_that_is_not_available_says_its_state(member, ours, state):
    image = world.image(ours, state=state)
    body = refused(
        member, INSTANCES, {"image": image.uid}, 409, "image_not_available", field="image", names=(image.uid, state)
    )
    assert body["state"] == state


@pytest.mark.parametrize(
    ("wish", "filter_name", "need"),
    [
        ({"vcpus": 5}, "vcpus", "5 free vCPUs"),
        ({"memory_mib": 2048}, "memory", "2048 MiB"),
        ({"volume_size_bytes": 20 * world.GIB}, "disk", "20.00 GiB"),
    ],
)
def test_no_room_names_the_filter_and_how_many_nodes_it_refused(member, node, image, wish, filter_name, need):
    for small in (node, world.another_node(), world.another_node()):
        small.vcpus, small.memory_mib, small.disk_bytes = 4, 1024, 10 * world.GIB
        small.save()
    body = {"image": image.uid, **wish}
    refused(member, INSTANCES, body, 409, "no_room", names=(f"'{filter_name}'", "all 3 nodes", need))


def test_no_room_for_a_silent_a_closed_and_a_foreign_node_says_which(member, node, ours, image):
    NodePulse.objects.update(status=NodeStatus.OFFLINE)
    refused(member, INSTANCES, {"image": image.uid}, 409, "no_room", names=("'online'", "the only node"))
    NodePulse.objects.update(status=NodeStatus.ONLINE)
    node.scheduling_enabled = False
    node.save()
    refused(member, INSTANCES, {"image": image.uid}, 409, "no_room", names=("'scheduling'", "the only node"))
    node.scheduling_enabled, node.hypervisors = True, ["kvm"]
    node.save()
    refused(member, INSTANCES, {"image": image.uid}, 409, "no_room", names=("'hypervisor'", "lxc"))
    node.hypervisors, node.arch = ["lxc"], "aarch64"
    node.save()
    refused(member, INSTANCES, {"image": image.uid}, 409, "no_room", names=("'architecture'", "x86_64"))


def test_a_node_that_is_full_of_guests_has_no_room(member, node, ours, image, monkeypatch):
    monkeypatch.setattr(instance_services, "SLOTS_PER_NODE", 1)
    world.instance(ours, slot=0)
    refused(member, INSTANCES, {"image": image.uid}, 409, "no_room", names=(node.uid, "1 instances"))


def test_a_full_network_and_a_missing_one_are_told(member, ours, image):
    network = Network.objects.get()
    network.ipv4_network = "10.77.0.0/30"
    network.save()
    Lease.objects.create(network=network, ipv4="10.77.0.2", mac="52:54:00:00:00:01", hostname="a", holder="vif-a")
    refused(member, INSTANCES, {"image": image.uid}, 409, "no_address", names=(network.uid, "no free address"))
    Network.objects.update(is_default=False)
    refused(member, INSTANCES, {"image": image.uid}, 409, "no_network", names=("default network",))


@pytest.mark.parametrize("field", ["vcpus", "memory_mib", "volume_size_bytes"])
@pytest.mark.parametrize("value", [0, -1, 2**31, 2**63, 10**30, 1.5, "many", "", None, True, [], {}, 1e308])
def test_a_size_out_of_range_is_refused_at_its_field(member, image, field, value):
    if field == "volume_size_bytes" and value in (None, 2**31):
        return  # as large as the image; 2 GiB
    refused(member, INSTANCES, {"image": image.uid, field: value}, 400, "invalid", field=field)


def test_less_memory_than_the_image_needs_names_both_figures(member, image):
    wish = {"image": image.uid, "memory_mib": 63}
    refused(member, INSTANCES, wish, 400, "memory_too_small", field="memory_mib", names=(image.uid, "64", "63"))


def test_a_volume_smaller_than_the_image_names_both_figures(member, image):
    wish = {"image": image.uid, "volume_size_bytes": world.GIB - 1}
    names = (image.uid, str(world.GIB), str(world.GIB - 1))
    refused(member, INSTANCES, wish, 400, "volume_too_small", field="volume_size_bytes", names=names)


@pytest.mark.parametrize(
    "hostname", ["-web", "web-", "Web", "we_b", "web.example", "ö", "a" * 64, "web web", "web;reboot", "$(id)"]
)
def test_a_bad_host_name_is_quoted_and_explained(member, image, hostname):
    wish = {"image": image.uid, "hostname": hostname}
    refused(member, INSTANCES, wish, 400, "bad_hostname", field="hostname", names=("host name", hostname))


@pytest.mark.parametrize("text", ["a\x00b", "a\nb", "a\x1bb", "a\x7fb", "x" * 256])
def test_control_characters_and_long_names_are_refused(member, image, text):
    refused(member, INSTANCES, {"image": image.uid, "name": text}, 400, "invalid", field="name")


def test_half_a_surrogate_pair_is_no_text(member, image):
    body = json.dumps({"image": image.uid, "name": "\ud800"})
    with nothing_changes():
        answer = member.generic("POST", INSTANCES, body, content_type="application/json")
    told(answer, 400, "invalid", field="name")


def test_a_duplicate_host_name_is_named_and_free_again_after_the_end(member, ours, theirs, image):
    first = world.instance(ours, hostname="web1", image=image)
    world.instance(theirs, hostname="web2")
    wish = {"image": image.uid, "hostname": "web1"}
    refused(member, INSTANCES, wish, 409, "hostname_taken", field="hostname", names=("'web1'",))
    assert member.post(INSTANCES, {**wish, "hostname": "web2"}).status_code == 202, "another account's is no matter"
    Instance.objects.filter(pk=first.pk).update(state="terminated", terminated_at=Now())
    assert member.post(INSTANCES, wish).status_code == 202


def test_an_unknown_key_and_someone_elses_are_not_there(member, theirs, image):
    foreign = world.ssh_key_pair(theirs)
    for uid in ("ssh-00000000", foreign.uid, "nonsense"):
        wish = {"image": image.uid, "ssh_keys": [uid]}
        refused(member, INSTANCES, wish, 404, "not_found", field="ssh_keys", names=("ssh key pair", uid))


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"ssh_keys": "ssh-1"}, "ssh_keys"),
        ({"ssh_keys": [["ssh-1"]]}, "ssh_keys.0"),
        ({"ssh_keys": ["ssh-00000000"] * 17}, "ssh_keys"),
        ({"user_data": "x" * 65_537}, "user_data"),
        ({"user_data": {"a": 1}}, "user_data"),
        ({"user_data": "a\x00b"}, "user_data"),
        ({"hostname": ["web"]}, "hostname"),
        ({"hostname": True}, "hostname"),
        ({"name": {"a": "b"}}, "name"),
        ({"state": "running"}, "state"),
        ({"account": "a-00000000"}, "account"),
        ({"memroy_mib": 128}, "memroy_mib"),
        ({"": 1}, ""),
    ],
)
def test_wrong_types_and_unknown_fields_are_refused_by_name(member, image, wish, field):
    with nothing_changes():
        body = told(member.post(INSTANCES, {"image": image.uid, **wish}), 400, "invalid", field=field or None)
    assert field in body["detail"]


def test_only_operators_choose_a_node(member, operator, node, image):
    for uid in (node.uid, "hn-00000000"):
        refused(member, INSTANCES, {"image": image.uid, "node": uid}, 403, "operator_only", field="node")
    wish = {"image": image.uid, "node": "hn-00000000"}
    refused(operator, INSTANCES, wish, 404, "not_found", field="node", names=("hn-00000000",))
    assert operator.post(INSTANCES, {"image": image.uid, "node": node.uid}).status_code == 202


# --- POST images -------------------------------------------------------------------------------------------------

GOOD = {"name": "img", "hypervisor": "kvm"}
FROM_URL = {**GOOD, "format": "gz"}


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("ftp://example.com/a.gz", "http://"),
        ("gopher://example.com/", "http://"),
        ("file:///etc/shadow", "http://"),
        ("FILE:///etc/shadow", "http://"),
        ("/etc/shadow", "http://"),
        ("http://", "http://"),
        ("http:///a.gz", "http://"),
        ("https:example.com", "http://"),
        ("javascript:alert(1)", "http://"),
        ("http://user@example.com/a.gz", "user or password"),
        ("http://user:secret@example.com/a.gz", "user or password"),
        ("http://:secret@example.com/a.gz", "user or password"),
        ("http://[::1/a.gz", "cannot be read"),
        ("http://[nonsense]/a.gz", "cannot be read"),
        ("http://example.com:99999/a.gz", "Port"),
        ("http://example.com:x/a.gz", "Port"),
        ("http://exa mple.com/a.gz", "spaces"),
        ("http://example.com/a\r\nHost: b", "control characters"),
    ],
)
def test_a_bad_url_is_refused_before_anything_is_made(member, url, word):
    body = refused(member, IMAGES, {**FROM_URL, "url": url}, 400, "bad_url", field="url", names=(word,))
    assert "secret" not in body["detail"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/a.gz", "http://169.254.169.254/latest", "http://[::1]/", "http://10.0.0.1/"]
)
def test_a_tenants_url_that_names_a_private_address_is_refused_at_once(member, url):
    refused(member, IMAGES, {**FROM_URL, "url": url}, 400, "bad_url", field="url", names=("address",))


def test_an_operator_may_read_a_file_of_the_node_but_send_no_password(operator):
    assert operator.post(IMAGES, {**FROM_URL, "url": "file:///srv/image.gz"}).status_code == 202
    wish = {**FROM_URL, "url": "http://user:secret@example.com/"}
    body = refused(operator, IMAGES, wish, 400, "bad_url", field="url")
    assert "secret" not in body["detail"]


@pytest.mark.parametrize(
    ("changes", "field", "word"),
    [
        ({"hypervisor": "lxc"}, "init", "busybox or systemd"),
        ({"hypervisor": "lxc", "init": ""}, "init", "busybox or systemd"),
        ({"hypervisor": "lxc", "init": "sysv"}, "init", "sysv"),
        ({"hypervisor": "xen"}, "hypervisor", "xen"),
        ({"hypervisor": ""}, "hypervisor", ""),
        ({"hypervisor": None}, "hypervisor", ""),
        ({"arch": "sparc"}, "arch", "sparc"),
        ({"os_type": "windows"}, "os_type", "windows"),
        ({"root_device": "/dev/sda"}, "root_device", "partition:N"),
        ({"root_device": "partition:0"}, "root_device", "partition:N"),
        ({"root_device": "partition:1\n; rm"}, "root_device", "partition:N"),
        ({"format": "zip"}, "format", "zip"),
        ({"format": None}, "format", ""),
        ({"sha256": "abc"}, "sha256", "64 hexadecimal"),
        ({"sha256": "G" * 64}, "sha256", "64 hexadecimal"),
        ({"min_memory_mib": -1}, "min_memory_mib", ""),
        ({"is_public": "perhaps"}, "is_public", ""),
        ({"name": ""}, "name", ""),
        ({"name": "a\x00"}, "name", ""),
        ({"size_bytes": 5}, "size_bytes", "Unknown field"),
    ],
)
def test_an_image_that_no_hypervisor_could_use_is_refused_at_its_field(member, changes, field, word):
    wish = {**FROM_URL, "url": "https://example.com/image.gz", **changes}
    refused(member, IMAGES, wish, 400, "invalid", field=field, names=(word,))


def test_an_image_comes_from_one_place_and_says_what_it_needs_to(member, ours):
    stored = world.backup_object(ours)
    both = {**GOOD, "backup_object": stored.uid, "url": "https://example.com/a.gz"}
    refused(member, IMAGES, both, 400, "invalid", field="backup_object", names=("not both",))
    refused(member, IMAGES, GOOD, 400, "invalid", field="backup_object")
    refused(
        member, IMAGES, {**GOOD, "url": "https://example.com/a"}, 400, "invalid", field="format", names=("raw or gz",)
    )
    again = {**GOOD, "backup_object": stored.uid, "format": "gz"}
    refused(member, IMAGES, again, 400, "invalid", field="format")
    digest = {**GOOD, "backup_object": stored.uid, "sha256": "0" * 64}
    refused(member, IMAGES, digest, 400, "invalid", field="sha256")


@pytest.mark.parametrize("state", ["pending", "creating", "error"])
def test_an_image_of_an_object_without_content_says_its_state(member, ours, state):
    stored = world.backup_object(ours, state=state)
    wish = {**GOOD, "backup_object": stored.uid}
    body = refused(member, IMAGES, wish, 409, "wrong_state", field="backup_object", names=(stored.uid, state))
    assert body["state"] == state


def test_an_image_of_someone_elses_object_is_not_made(member, theirs):
    stored = world.backup_object(theirs)
    for uid in (stored.uid, "bo-00000000"):
        wish = {**GOOD, "backup_object": uid}
        refused(member, IMAGES, wish, 404, "not_found", field="backup_object", names=("backup object", uid))


def test_only_operators_publish_images(member, ours):
    wish = {**GOOD, "backup_object": world.backup_object(ours).uid, "is_public": True}
    refused(member, IMAGES, wish, 403, "operator_only", field="is_public")


def test_without_a_backup_storage_nothing_is_imported_or_announced(member):
    BackupStorage.objects.all().delete()
    refused(member, OBJECTS, {"format": "gz"}, 409, "no_backup_storage", names=("backup storage",))
    refused(member, IMAGES, {**FROM_URL, "url": "https://example.com/a.gz"}, 409, "no_backup_storage")


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({}, "format"),
        ({"format": "tar"}, "format"),
        ({"format": "gz", "size_bytes": 0}, "size_bytes"),
        ({"format": "gz", "size_bytes": 2**70}, "size_bytes"),
        ({"format": "gz", "sha256": "0" * 63}, "sha256"),
        ({"format": "gz", "sha256": "0" * 64 + "\n0"}, "sha256"),
        ({"format": "gz", "name": "a\x07"}, "name"),
        ({"format": "gz", "state": "available"}, "state"),
    ],
)
def test_a_bad_announcement_of_an_upload_is_refused_at_its_field(member, wish, field):
    refused(member, OBJECTS, wish, 400, "invalid", field=field)


# --- keys and tokens ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "ssh-ed25519",
        "ssh-ed25519 !!!!",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA",
        "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
        f"{world.KEY}\n{world.KEY}",
        f'command="reboot" {world.KEY}',
    ],
)
def test_a_malformed_key_is_refused_with_a_sentence(member, text):
    body = refused(member, KEYS, {"name": "k", "public_key": text}, 400, "bad_public_key", field="public_key")
    assert "AAAA" not in body["detail"]


@pytest.mark.parametrize("text", ["", 5.5, ["a"], None, "a\x00", "x" * 16_385])
def test_what_is_no_text_is_no_key(member, text):
    with nothing_changes():
        body = problem(member.post(KEYS, {"name": "k", "public_key": text}))
    assert (body["status"], body["field"]) == (400, "public_key")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"role": "king"}, "role"),
        ({"role": None}, "role"),
        ({"name": ""}, "name"),
        ({"expires_in_s": 0}, "expires_in_s"),
        ({"expires_in_s": 10**12}, "expires_in_s"),
        ({"expires_in_s": "soon"}, "expires_in_s"),
        ({"operator": "yes please"}, "operator"),
        ({"secret": "vdc_"}, "secret"),
    ],
)
def test_a_bad_token_wish_is_refused_at_its_field(caller, ours, changes, field):
    client = caller(ours, Role.OWNER).client
    client.get(TOKENS)
    refused(client, TOKENS, {"name": "t", "role": "viewer", **changes}, 400, "invalid", field=field)


def test_bad_tokens_get_401_with_the_reason_and_change_nothing(caller, ours):
    held = caller(ours)
    wish = {"image": world.image(ours).uid}

    def answers(code: str, *names: str) -> None:
        told(held.client.get(INSTANCES), 401, code, names=names)
        refused(held.client, INSTANCES, wish, 401, code, names=names)

    ApiToken.objects.update(expires_at=Now() - timedelta(seconds=1))
    answers("token_expired", "expired at")
    ApiToken.objects.update(expires_at=None, revoked_at=Now())
    answers("token_revoked", "revoked at")
    ApiToken.objects.update(revoked_at=None)
    ours.enabled = False
    ours.save()
    answers("account_disabled", ours.uid)
    for secret, code in (
        (held.secret[:-1], "token_malformed"),
        ("vdc_" + "x" * 43, "token_unknown"),
        ("", "token_malformed"),
    ):
        held.client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
        answers(code)
    held.client.credentials(HTTP_AUTHORIZATION="Basic YTpi")
    answers("token_malformed", "bearer")


# --- bodies and parameters ---------------------------------------------------------------------------------------

TAKES_A_BODY = [
    (route, method)
    for route in ROUTES
    for method in route.actions
    if method == "post" or (method == "delete" and route.template.startswith("instances"))
]


def path_of_own(route, account) -> str:
    model = Node if issubclass(route.view, OfNodes) else route.view.rows.model
    return route.path(world.sample(model, account).uid if route.names_a_row else "")


@pytest.mark.parametrize(("route", "method"), TAKES_A_BODY, ids=str)
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"a": ', 400, "malformed_body"),
        (b"\xff\xfe", 400, "malformed_body"),
        (b'{"a": NaN}', 400, "malformed_body"),
        (b"[" * 100_000, 400, "malformed_body"),
        (b'{"a": ' + b"9" * 5000 + b"}", 400, "malformed_body"),
        (b"[]", 400, "invalid"),
        (b'"text"', 400, "invalid"),
        (b'{"no_such_field": 1}', 400, "invalid"),
        (b'{"\\u0000": 1}', 400, "invalid"),
        (b'{"\\ud800": 1}', 400, "invalid"),
        (b'{"a": "' + b"x" * MOST_BYTES + b'"}', 413, "body_too_large"),
    ],
    ids=["cut", "not UTF-8", "NaN", "deep", "long number", "list", "text", "unknown field", "NUL", "surrogate", "huge"],
)
def test_every_route_that_takes_a_body_refuses_a_broken_one(operator, ours, route, method, body, status, code):
    path, client = path_of_own(route, ours), operator
    with nothing_changes():
        answer = client.generic(method.upper(), path, body, content_type="application/json")
    assert problem(answer)["code"] == code
    assert answer.status_code == status


@pytest.mark.parametrize(("route", "method"), TAKES_A_BODY, ids=str)
def test_a_body_that_is_no_json_at_all_says_what_is_wanted(operator, ours, route, method):
    path, client = path_of_own(route, ours), operator
    with nothing_changes():
        answer = client.generic(method.upper(), path, b"a=b", content_type="application/x-www-form-urlencoded")
    told(answer, 415, "unsupported_media_type", names=("application/json",))


@pytest.mark.parametrize("route", [route for route in ROUTES if "get" in route.actions], ids=str)
def test_an_unknown_query_parameter_is_refused_by_name(caller, ours, staff, node, route):
    client = caller(ours, Role.OWNER, operator=True, issued_by=staff).client
    named = route.names_a_row and hasattr(route.view, "rows")
    path = path_of_own(route, ours) if named else route.path(node.uid)
    with nothing_changes():
        told(client.get(path, {"colour": "red"}), 400, "unknown_parameter", field="colour", names=("'colour'",))


@pytest.mark.parametrize("route", [route for route in ROUTES if route.lists], ids=str)
def test_bad_pages_are_refused_by_name(caller, ours, staff, route):
    client = caller(ours, Role.OWNER, operator=True, issued_by=staff).client
    for limit in ("0", "201", "-1", "many", "", "1e3", "٣", "\x00", "9" * 40):
        told(client.get(route.path(), {"limit": limit}), 400, "invalid", field="limit")
    for cursor in ("", "x", "MTIzNDU", "\x00", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTkgMQ", "LTEgLTE"):
        told(client.get(route.path(), {"after": cursor}), 400, "bad_cursor", field="after")


@pytest.mark.parametrize(
    ("path", "value"), [(INSTANCES, "flying"), (INSTANCES, "\x00"), ("/api/v1/operations", "flying")]
)
def test_a_filter_by_a_state_that_there_is_not_is_refused(member, path, value):
    told(member.get(path, {"state": value}), 400, "invalid", field="state")


def test_a_filter_by_a_subject_that_cannot_be_finds_nothing_or_is_refused(member):
    for subject in ("\x00", "i-00000000", "x" * 5000, ""):
        answer = member.get("/api/v1/operations", {"subject": subject})
        assert answer.status_code in (200, 400), subject
        assert answer.status_code == 400 or answer.json()["items"] == []


@pytest.mark.parametrize("value", ["0", "-1", "x", "", "1048577", "\x00"])
def test_a_bad_number_of_console_bytes_is_refused(member, ours, value):
    path = f"{INSTANCES}/{world.instance(ours).uid}/console-log"
    told(member.get(path, {"last_bytes": value}), 400, "invalid", field="last_bytes")


def test_a_console_that_cannot_be_asked_for_says_which_node_is_silent(member, ours, node):
    path = f"{INSTANCES}/{world.instance(ours).uid}/console-log"
    told(member.get(path), 503, "files_server", names=(node.uid,))


# --- verbs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"force": "perhaps"}, "force"),
        ({"force": None}, "force"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"timeout_s": 3601}, "timeout_s"),
        ({"timeout_s": "soon"}, "timeout_s"),
        ({"timeout": 5}, "timeout"),
    ],
)
def test_a_bad_poweroff_is_refused_at_its_field(member, ours, wish, field):
    path = f"{INSTANCES}/{world.instance(ours).uid}/poweroff"
    refused(member, path, wish, 400, "invalid", field=field)


@pytest.mark.parametrize("verb", ["launch", "explode", "create", "console_log", "__class__", "retrieve"])
def test_a_verb_that_is_not_offered_has_no_route(member, ours, verb):
    path = f"{INSTANCES}/{world.instance(ours).uid}/{verb}"
    refused(member, path, {}, 404, "not_found", names=(path,))


def test_a_good_request_after_all_these_is_taken(member, image):
    """So that what is refused above is refused for its fault, not for something that the tests forgot."""
    before = every_row()
    wish = {
        "image": image.uid,
        "name": "Web server ✓",
        "hostname": "web",
        "vcpus": 2,
        "memory_mib": 64,
        "volume_size_bytes": 2 * world.GIB,
        "user_data": "#!/bin/sh\necho hello\n",
    }
    answer = member.post(INSTANCES, json.loads(json.dumps(wish)))
    assert answer.status_code == 202
    after = every_row()
    made = {label for label in after if len(after[label]) > len(before[label])}
    assert made == {
        "instances.Instance",
        "instances.Vif",
        "instances.VolumeAttachment",
        "networks.Lease",
        "operations.Event",
        "operations.Operation",
        "operations.OperationSubject",
        "operations.Step",
        "volumes.Volume",
    }
