"""Public keys are checked by taking them apart."""

from __future__ import annotations

import base64
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.openssh import BadKey, parse_public_key


def packed(*parts: bytes) -> str:
    return base64.b64encode(b"".join(struct.pack(">I", len(part)) + part for part in parts)).decode()


def number(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big")


ED25519 = f"ssh-ed25519 {packed(b'ssh-ed25519', bytes(32))}"
POINT = b"\x04" + bytes(64)


@pytest.mark.parametrize(
    ("kind", "bits"), [("ed25519", None), ("ecdsa", 256), ("ecdsa", 384), ("ecdsa", 521), ("rsa", 2048), ("rsa", 3072)]
)
def test_keys_of_ssh_keygen_are_taken_with_its_own_fingerprint(tmp_path: Path, kind: str, bits: int | None):
    file = tmp_path / "key"
    size = ["-b", str(bits)] if bits else []
    subprocess.run(["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", "me @ home", "-f", str(file)], check=True)
    line = file.with_suffix(".pub").read_text()
    key = parse_public_key(line)
    told = subprocess.run(["ssh-keygen", "-l", "-f", f"{file}.pub"], check=True, capture_output=True, text=True).stdout
    assert key.fingerprint == told.split()[1]
    assert key.line == line.strip()


@pytest.mark.parametrize(
    "line",
    [
        f"sk-ssh-ed25519@openssh.com {packed(b'sk-ssh-ed25519@openssh.com', bytes(32), b'ssh:')} token",
        "sk-ecdsa-sha2-nistp256@openssh.com "
        + packed(b"sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", POINT, b"ssh:"),
    ],
)
def test_keys_of_security_tokens_are_taken(line):
    assert parse_public_key(line).line == line


def test_space_around_and_between_is_tidied():
    assert parse_public_key(f"  {ED25519.replace(' ', '   ')}   a  comment \r\n").line == f"{ED25519} a  comment"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "begins with its kind"),
        ("hello", "begins with its kind"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n", "private key"),
        (f"{ED25519}\n{ED25519}", "single line"),
        (f'command="rm" {ED25519}', "begins with its kind"),
        (f"ssh-dss {packed(b'ssh-dss', bytes(32))}", "begins with its kind"),
        ("ssh-ed25519", "is missing"),
        ("ssh-ed25519 !!!", "not base64"),
        ("ssh-ed25519 ü", "not base64"),
        ("ssh-ed25519 AAAA", "too early"),
        (ED25519[:-8], "too early"),
        (f"ssh-rsa {ED25519.split()[1]}", "another kind inside"),
        (f"ssh-ed25519 {packed(b'ssh-ed25519', bytes(31))}", "32 bytes"),
        (f"ssh-ed25519 {packed(b'ssh-ed25519', bytes(32), b'more')}", "follows its end"),
        (f"ecdsa-sha2-nistp256 {packed(b'ecdsa-sha2-nistp256', b'nistp384', POINT)}", "curve nistp256"),
        (f"ecdsa-sha2-nistp256 {packed(b'ecdsa-sha2-nistp256', b'nistp256', POINT[:-1])}", "curve nistp256"),
        (f"ssh-rsa {packed(b'ssh-rsa', number(65537), number(2**1023 + 1))}", "this one has 1024"),
        (f"ssh-rsa {packed(b'ssh-rsa', number(65537), number(2**20000 + 1))}", "2048 to 16384"),
        (f"ssh-rsa {packed(b'ssh-rsa', number(2), number(2**2047 + 1))}", "not the numbers"),
        (f"ssh-rsa {packed(b'ssh-rsa', b'', b'')}", "not the numbers"),
    ],
)
def test_what_is_no_key_is_told_why(text, sentence):
    with pytest.raises(BadKey, match=sentence):
        parse_public_key(text)


@given(st.text() | st.binary().map(lambda blob: f"ssh-ed25519 {base64.b64encode(blob).decode()}"))
def test_nothing_that_people_paste_breaks_the_parser(text):
    try:
        parse_public_key(text)
    except BadKey as exc:
        assert str(exc).endswith((".", "`."))
