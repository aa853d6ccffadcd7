"""Public keys as OpenSSH writes them, checked by taking them apart."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

RSA_MIN_BITS = 2048
RSA_MAX_BITS = 16384
_POINT_BYTES = {"nistp256": 65, "nistp384": 97, "nistp521": 133}  # 0x04, x, y
_KINDS = {
    "ssh-ed25519": "",
    "ecdsa-sha2-nistp256": "nistp256",
    "ecdsa-sha2-nistp384": "nistp384",
    "ecdsa-sha2-nistp521": "nistp521",
    "ssh-rsa": "",
    "sk-ssh-ed25519@openssh.com": "",
    "sk-ecdsa-sha2-nistp256@openssh.com": "nistp256",
}


class BadKey(ValueError):
    """The message is a sentence for the person who pasted the key."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key in one line. `fingerprint` is `SHA256:…` as `ssh-keygen -l` prints it."""

    line: str
    kind: str
    fingerprint: str


def parse_public_key(text: str) -> PublicKey:
    """Check one OpenSSH public key (`kind base64 [comment]`); BadKey says what is wrong with it."""
    line = text.strip()
    if "PRIVATE KEY" in line:
        raise BadKey("This is a private key; keep it to yourself and send the line from the file ending in .pub.")
    if any((ord(character) < 32 and character != "\t") or ord(character) == 127 for character in line):
        raise BadKey("A public key is a single line; this has several lines or control characters.")
    words = line.split(None, 2)
    if not words or words[0] not in _KINDS:
        raise BadKey(f"A public key begins with its kind, which is one of {', '.join(_KINDS)}.")
    kind = words[0]
    if len(words) < 2:
        raise BadKey(f"Nothing follows the word {kind}; the key itself is missing.")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError) as exc:
        raise BadKey(f"The part after {kind} is not base64; the key was damaged or cut while copying.") from exc
    _check(kind, _Reader(blob))
    fingerprint = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return PublicKey(line=" ".join(words), kind=kind, fingerprint=f"SHA256:{fingerprint}")


class _Reader:
    """Takes length-prefixed strings off a key blob (RFC 4251, section 5)."""

    def __init__(self, blob: bytes) -> None:
        self.left = blob

    def string(self) -> bytes:
        size = int.from_bytes(self.left[:4], "big")
        if len(self.left) < 4 or len(self.left) - 4 < size:
            raise BadKey("The key ends too early; it was cut while copying.")
        taken, self.left = self.left[4 : 4 + size], self.left[4 + size :]
        return taken


def _check(kind: str, blob: _Reader) -> None:
    if blob.string() != kind.encode():
        raise BadKey(f"The key says {kind} in front, but holds another kind inside.")
    if kind == "ssh-rsa":
        _check_rsa(exponent=blob.string(), modulus=blob.string())
    elif curve := _KINDS[kind]:
        name, point = blob.string(), blob.string()
        if name != curve.encode() or len(point) != _POINT_BYTES[curve] or point[0] != 4:
            raise BadKey(f"The key is damaged: it does not hold a point of the curve {curve}.")
    elif len(blob.string()) != 32:
        raise BadKey("The key is damaged: an ed25519 key is 32 bytes long.")
    if kind.startswith("sk-"):
        blob.string()  # the application, "ssh:" as a rule
    if blob.left:
        raise BadKey("The key is damaged: something follows its end.")


def _check_rsa(*, exponent: bytes, modulus: bytes) -> None:
    number, power = int.from_bytes(modulus, "big", signed=True), int.from_bytes(exponent, "big", signed=True)
    if power < 3 or power % 2 == 0 or number <= 0:
        raise BadKey("The key is damaged: these are not the numbers of an RSA key.")
    if not RSA_MIN_BITS <= number.bit_length() <= RSA_MAX_BITS:
        raise BadKey(
            f"An RSA key has {RSA_MIN_BITS} to {RSA_MAX_BITS} bits, this one has {number.bit_length()};"
            " make a new one with `ssh-keygen -t ed25519`."
        )
