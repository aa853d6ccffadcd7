"""Key pairs over the API: imported, generated, deleted."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from accounts import services
from accounts.models import Role, SshKeyPair

pytestmark = pytest.mark.django_db
KEYS = "/api/v1/ssh-key-pairs"
LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@home"


def test_a_key_is_imported_and_read_back(caller, ours):
    client = caller(ours).client
    made = client.post(KEYS, {"name": "laptop", "public_key": f"{LINE}\n"})
    assert made.status_code == 201
    body = made.json()
    assert body["public_key"] == LINE
    assert body["fingerprint"].startswith("SHA256:")
    assert body["id"].startswith("ssh-")
    assert body["allowed_verbs"] == ["delete"]
    assert "private_key" not in body
    assert client.get(f"{KEYS}/{body['id']}").json() == body
    assert client.get(KEYS).json() == {"items": [body], "next": None}


def test_a_malformed_key_gets_a_sentence_and_nothing_is_kept(caller, ours):
    answer = caller(ours).client.post(KEYS, {"name": "laptop", "public_key": LINE[:40]})
    assert (answer.status_code, answer.json()["field"]) == (400, "public_key")
    assert answer.json()["code"] == "bad_public_key"
    assert "cut while copying" in answer.json()["detail"]
    assert not SshKeyPair.objects.exists()


@pytest.mark.parametrize("name", ["laptop", "-f", "ünï cödé", "a; rm -rf /"])
def test_a_generated_pair_fits_together_and_its_private_half_is_shown_once(caller, ours, tmp_path: Path, name):
    client = caller(ours).client
    body = client.post(KEYS, {"name": name}).json()
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(body["private_key"])
    derived = subprocess.run(["ssh-keygen", "-y", "-f", str(file)], check=True, capture_output=True, text=True).stdout
    assert derived.split()[:2] == body["public_key"].split()[:2]
    assert "private_key" not in client.get(f"{KEYS}/{body['id']}").json()
    assert body["private_key"] not in str(SshKeyPair.objects.values().get())


def test_no_private_key_is_left_in_memory_files(ours):
    before = set(services.MEMORY.glob("vdc-key-*"))
    services.create_ssh_key_pair(ours, name="laptop")
    assert set(services.MEMORY.glob("vdc-key-*")) <= before


def test_a_missing_ssh_keygen_is_told_with_a_way_around_it(caller, ours, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    answer = caller(ours).client.post(KEYS, {"name": "laptop"})
    assert (answer.status_code, answer.json()["code"]) == (503, "key_generation_failed")
    assert "import a public key" in answer.json()["detail"]
    assert not SshKeyPair.objects.exists()


def test_a_deleted_key_is_gone(caller, ours):
    client = caller(ours, Role.MEMBER).client
    uid = client.post(KEYS, {"name": "laptop", "public_key": LINE}).json()["id"]
    assert client.delete(f"{KEYS}/{uid}").status_code == 204
    assert client.get(f"{KEYS}/{uid}").status_code == 404
    assert client.delete(f"{KEYS}/{uid}").status_code == 404
