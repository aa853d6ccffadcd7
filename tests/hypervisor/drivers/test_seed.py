"""The NoCloud seed as text, directory and ISO image."""

from __future__ import annotations

import io
from pathlib import Path

import pycdlib
import pytest

from hypervisor.contract import SeedSpec
from hypervisor.drivers.libvirt.seed import meta_data, write_directory, write_iso

SEED = SeedSpec(
    "i-seed0001", "web-1", ("ssh-ed25519 AAAAC3Nza+/= ann@home", "ssh-rsa AAAAB3 bob"), "#!/bin/sh\necho ü\n"
)


def test_meta_data_has_one_plain_line_per_fact() -> None:
    assert meta_data(SEED).splitlines() == [
        "instance-id: i-seed0001",
        "local-hostname: web-1",
        "public-keys:",
        "  - ssh-ed25519 AAAAC3Nza+/= ann@home",
        "  - ssh-rsa AAAAB3 bob",
    ]


@pytest.mark.parametrize("comment", ["it's: mine", "a #1 key", 'say "hi"', "- dash\nsecond: line"])
def test_what_yaml_could_misread_is_quoted(comment: str) -> None:
    text = meta_data(SeedSpec("i-1", "web", (f"ssh-ed25519 AAAA {comment}",)))
    assert text.splitlines()[-1].startswith('  - "ssh-ed25519 AAAA ')
    assert len(text.splitlines()) == 4


def test_the_directory_is_for_the_guests_root_only(tmp_path: Path) -> None:
    seed = tmp_path / "seed"
    write_directory(SEED, seed, owner=100_000)
    write_directory(SEED, seed, owner=200_000)
    assert (seed / "user-data").read_text() == SEED.user_data
    for path in (seed, seed / "meta-data", seed / "user-data"):
        assert (path.stat().st_uid, path.stat().st_mode & 0o077) == (200_000, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["seed"]


def test_the_image_is_labelled_and_holds_both_files_under_both_kinds_of_names(tmp_path: Path) -> None:
    image = tmp_path / "seed.iso"
    write_iso(SEED, image, owner=64055)
    assert (image.stat().st_uid, image.stat().st_mode & 0o777) == (64055, 0o400)
    iso = pycdlib.PyCdlib()
    iso.open(str(image))
    assert iso.pvd.volume_identifier.strip() == b"cidata"
    for kind in ("rr_path", "joliet_path"):
        content = io.BytesIO()
        iso.get_file_from_iso_fp(content, **{kind: "/user-data"})
        assert content.getvalue().decode() == SEED.user_data
    iso.close()
