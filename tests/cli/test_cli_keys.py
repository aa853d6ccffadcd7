"""Keys: the private half is told once and lands where it was asked for."""

from __future__ import annotations

import stat

from tests.cli.scripted_api import Answer, problem

MADE = {
    "id": "ssh-5m2p8q1r",
    "name": "me",
    "fingerprint": "SHA256:abc",
    "private_key": "-----BEGIN\nsecret\n-----END\n",
}


def test_a_private_key_is_saved_for_its_owner_only(api, vdc, tmp_path):
    api.on("POST", "ssh-key-pairs", Answer(201, dict(MADE)))
    ended = vdc("key", "create", "--name", "me", "--save", str(tmp_path / "me"))
    assert (ended.code, ended.out) == (0, "ssh-5m2p8q1r SHA256:abc\n")
    assert (tmp_path / "me").read_text() == MADE["private_key"]
    assert stat.S_IMODE((tmp_path / "me").stat().st_mode) == 0o600
    assert "secret" not in ended.err


def test_without_a_file_the_private_key_is_all_of_stdout(api, vdc):
    api.on("POST", "ssh-key-pairs", Answer(201, dict(MADE)))
    assert vdc("key", "create", "--name", "me").out == MADE["private_key"]


def test_a_file_that_is_there_is_not_overwritten_and_no_key_is_made(api, vdc, tmp_path):
    (tmp_path / "me").write_text("precious")
    ended = vdc("key", "create", "--name", "me", "--save", str(tmp_path / "me"))
    assert ended.code == 2
    assert (tmp_path / "me").read_text() == "precious"
    assert api.requests == []


def test_a_refused_key_leaves_no_empty_file(api, vdc, tmp_path):
    api.on("POST", "ssh-key-pairs", problem(409, "There is a key called me.", field="name"))
    assert vdc("key", "create", "--name", "me", "--save", str(tmp_path / "me")).code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_public_key_is_imported(api, vdc, tmp_path):
    api.on("POST", "ssh-key-pairs", Answer(201, {"id": "ssh-5m2p8q1r", "fingerprint": "SHA256:abc"}))
    (tmp_path / "me.pub").write_text("ssh-ed25519 AAAA me\n")
    assert vdc("key", "import", str(tmp_path / "me.pub"), "--name", "me").code == 0
    assert api.requests[0].body == {"name": "me", "public_key": "ssh-ed25519 AAAA me"}


def test_a_private_key_is_never_sent(api, vdc, tmp_path):
    (tmp_path / "me").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    ended = vdc("key", "import", str(tmp_path / "me"), "--name", "me")
    assert ended.code == 2
    assert "me.pub" in ended.err
    assert api.requests == []


def test_a_key_is_deleted(api, vdc):
    api.on("DELETE", "ssh-key-pairs/ssh-5m2p8q1r", Answer(204))
    assert vdc("key", "delete", "ssh-5m2p8q1r").out == "ssh-5m2p8q1r is deleted\n"
