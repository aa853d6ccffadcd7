"""The test guests: what is in the images, and when they are built again."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.guests import build, recipe
from deploy.guests.command import BuildError, run
from deploy.guests.cpio import CpioArchive
from deploy.guests.disk import Partition, partition_table
from deploy.guests.kernel import select_modules

CLONE = Path(__file__).resolve().parents[2]
MIB = 1 << 20
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFirstKeyOfSomebody someone@example"


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="session")
def images() -> Path:
    out = CLONE / "build" / "guests"
    build.build_images(out, silent)
    return out


@pytest.fixture(scope="session")
def manifest(images: Path) -> dict[str, dict]:
    described = json.loads((images / "manifest.json").read_text())["images"]
    return {image["hypervisor"]: image for image in described}


@pytest.fixture(scope="session")
def raw(images: Path, manifest: dict[str, dict], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("raw")
    for hypervisor, image in manifest.items():
        with gzip.open(images / image["file"]) as packed, (directory / hypervisor).open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, MIB)
    return {hypervisor: directory / hypervisor for hypervisor in manifest}


@pytest.fixture
def guest_root(raw: dict[str, Path], tmp_path: Path) -> Path:
    """The root file system of the LXC image as a tree of its own."""
    tree = tmp_path / "guest"
    tree.mkdir()
    run(["debugfs", "-R", f"rdump / {tree}", f"{raw['lxc']}?offset={recipe.PARTITIONS_START}"])
    return tree


@pytest.fixture
def copied(images: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(images, tmp_path / "images"))


@pytest.mark.parametrize("hypervisor", ["kvm", "lxc"])
def test_the_manifest_says_of_each_image_what_is_true(hypervisor, images, manifest, raw):
    image = manifest[hypervisor]
    stored = (images / image["file"]).read_bytes()
    assert image["stored_size_bytes"] == len(stored)
    assert image["sha256"] == hashlib.sha256(stored).hexdigest()
    assert image["raw_size_bytes"] == raw[hypervisor].stat().st_size
    assert (image["format"], image["arch"], image["os_type"]) == ("gz", "x86_64", "linux")


def test_an_importer_learns_how_each_image_starts_and_stops(manifest):
    assert (manifest["kvm"]["init"], manifest["kvm"]["root_device"]) == ("", "")
    assert (manifest["lxc"]["init"], manifest["lxc"]["root_device"]) == ("busybox", "partition:1")


def test_the_images_stay_small(manifest):
    assert all(image["stored_size_bytes"] <= 25 * MIB for image in manifest.values())
    assert all(image["raw_size_bytes"] <= 128 * MIB for image in manifest.values())


def partitions_of(disk: Path) -> list[tuple[int, int, int, int]]:
    """(status, type, start, size) of the primary partitions, the last two in bytes."""
    record = disk.read_bytes()[:512]
    assert record[510:] == b"\x55\xaa"
    entries = [struct.unpack("<B3xB3xII", record[446 + 16 * n : 462 + 16 * n]) for n in range(4)]
    return [(status, kind, start * 512, size * 512) for status, kind, start, size in entries if size]


def test_the_kvm_disk_has_an_active_fat_partition_and_then_its_root(raw):
    boot, root = partitions_of(raw["kvm"])
    assert boot[:2] == (0x80, 0x06)
    assert root[:2] == (0, 0x83)
    assert boot[2] + boot[3] == root[2]
    assert root[2] + root[3] == raw["kvm"].stat().st_size


def test_the_lxc_disk_has_one_partition(raw):
    ((_, kind, start, size),) = partitions_of(raw["lxc"])
    assert kind == 0x83
    assert start + size == raw["lxc"].stat().st_size


@pytest.mark.parametrize("hypervisor", ["kvm", "lxc"])
def test_the_root_file_system_is_whole_and_belongs_to_root(hypervisor, raw):
    start = partitions_of(raw[hypervisor])[-1][2]
    device = f"{raw[hypervisor]}?offset={start}"
    run(["e2fsck", "-f", "-n", device])
    for path in ("/usr/sbin/init", "/usr/sbin/dropbear", "/root/.ssh"):
        assert "User:     0   Group:     0" in run(["debugfs", "-R", f"stat {path}", device])


def test_no_host_key_is_in_the_image(guest_root):
    assert list((guest_root / "etc/dropbear").iterdir()) == []


def test_a_second_build_fetches_nothing_and_touches_nothing(images, monkeypatch):
    monkeypatch.setattr(build, "fetch_packages", lambda directory: pytest.fail("the network was used"))
    before = {path: path.stat().st_mtime_ns for path in images.glob("[!.]*")}
    said: list[str] = []
    build.build_images(images, said.append)
    assert said == ["guest images: already built"]
    assert {path: path.stat().st_mtime_ns for path in images.glob("[!.]*")} == before


class FetchedAgain(Exception):
    pass


@pytest.fixture
def fetching_is_noticed(monkeypatch):
    def noticed(directory: Path) -> None:
        raise FetchedAgain

    monkeypatch.setattr(build, "fetch_packages", noticed)


@pytest.mark.usefixtures("fetching_is_noticed")
def test_a_damaged_image_is_built_again(copied):
    with (copied / "lxc.raw.gz").open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    with pytest.raises(FetchedAgain):
        build.build_images(copied, silent)


@pytest.mark.usefixtures("fetching_is_noticed")
@pytest.mark.parametrize("content", ["", "[]", '{"recipe": "another"}'])
def test_a_manifest_that_vouches_for_nothing_is_built_again(copied, content):
    (copied / "manifest.json").write_text(content)
    with pytest.raises(FetchedAgain):
        build.build_images(copied, silent)


@pytest.mark.usefixtures("fetching_is_noticed")
def test_another_recipe_is_built_again(copied, monkeypatch):
    monkeypatch.setattr(recipe, "recipe_hash", lambda: "0" * 64)
    with pytest.raises(FetchedAgain):
        build.build_images(copied, silent)


@pytest.mark.usefixtures("fetching_is_noticed")
def test_a_build_that_fails_leaves_the_old_images_and_no_work_behind(copied):
    (copied / "manifest.json").write_text("{}")
    (copied / ".work-killed").mkdir()
    with pytest.raises(FetchedAgain):
        build.build_images(copied, silent)
    assert sorted(path.name for path in copied.iterdir()) == [".lock", "kvm.raw.gz", "lxc.raw.gz", "manifest.json"]


def test_two_builds_at_once_make_the_images_once(tmp_path):
    argv = [sys.executable, "-m", "deploy.guests.build", "--out", str(tmp_path / "images")]
    builds = [subprocess.Popen(argv, cwd=CLONE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        texts = [process.communicate(timeout=300)[0] for process in builds]
    finally:
        for process in builds:
            process.kill()
            process.wait()
    assert [process.returncode for process in builds] == [0, 0]
    assert sorted("already built" in text for text in texts) == [False, True]
    assert (tmp_path / "images" / "manifest.json").exists()


def test_a_tool_that_fails_is_named_with_what_it_said():
    with pytest.raises(BuildError, match=r"(?s)`ls /nowhere` ended with exit code 2:.*No such file"):
        run(["ls", "/nowhere"])


def test_a_tool_that_is_missing_is_named():
    with pytest.raises(BuildError, match="no-such-tool is not installed"):
        run(["no-such-tool"])


def test_a_partition_table_is_512_bytes_with_the_boot_code_in_front():
    table = partition_table([Partition(MIB, MIB, kind=0x83)], boot_code=b"code")
    assert len(table) == 512
    assert table.startswith(b"code")


def test_an_archive_for_the_kernel_aligns_every_part_to_four_bytes():
    archive = CpioArchive()
    archive.add_directory("dev")
    archive.add_file("dev/odd", b"12345", 0o600)
    data = archive.finish()
    members, at = {}, 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        numbers = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        content_at = at + 110 + name_size + -(110 + name_size) % 4
        members[name] = (mode, data[content_at : content_at + size])
        at = content_at + size + -size % 4
    assert members == {"dev": (0o040755, b""), "dev/odd": (0o100600, b"12345"), "TRAILER!!!": (0, b"")}


@pytest.fixture
def kernel_tree(tmp_path: Path) -> Path:
    """A kernel package in which net-card needs bus, and core is built in."""
    modules = tmp_path / "lib" / "modules" / "6.1.0"
    modules.mkdir(parents=True)
    (modules / "modules.builtin").write_text("kernel/core.ko\n")
    (modules / "net-card.ko").write_bytes(b"\0license=GPL\0depends=bus,core\0")
    (modules / "bus.ko").write_bytes(b"\0depends=\0")
    return tmp_path


def test_modules_come_after_those_they_need_and_builtin_ones_not_at_all(kernel_tree):
    assert [module.name for module in select_modules(kernel_tree, ("core", "net_card"))] == ["bus", "net_card"]


def test_a_module_that_the_kernel_lacks_is_named(kernel_tree):
    with pytest.raises(BuildError, match="no module other"):
        select_modules(kernel_tree, ("other",))


# What the guest's own scripts do, in a root and namespaces of their own.

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin", "container": "test"}


def read_seed(root: Path, meta_data: str, user_data: str = "") -> None:
    seed = root / "var/lib/cloud/seed/nocloud"
    (seed / "meta-data").write_text(meta_data)
    (seed / "user-data").write_text(user_data)
    argv = ["unshare", "--uts", "chroot", str(root), "/usr/lib/vdc-guest/seed"]
    subprocess.run(argv, env=ENVIRONMENT, check=True, timeout=30)


def test_the_seed_gives_name_keys_and_hello_page(guest_root):
    read_seed(guest_root, f'instance-id: i-abc12345\nlocal-hostname: web1\npublic-keys:\n  - {KEY}\n  - "{KEY}: two"\n')
    assert (guest_root / "etc/hostname").read_text() == "web1\n"
    assert (guest_root / "root/.ssh/authorized_keys").read_text() == f"{KEY}\n{KEY}: two\n"
    assert (guest_root / "root/.ssh/authorized_keys").stat().st_mode & 0o777 == 0o600
    assert (guest_root / "var/www/index.html").read_text() == "hello from web1\ninstance-id: i-abc12345\n"


def test_only_the_list_of_public_keys_is_read_as_keys(guest_root):
    read_seed(guest_root, f"public-keys:\n- {KEY}\nothers:\n  - no-key\ninstance-id: 'i-abc12345'\n")
    assert (guest_root / "root/.ssh/authorized_keys").read_text() == f"{KEY}\n"
    assert (guest_root / "var/lib/vdc-guest/instance-id").read_text() == "i-abc12345\n"


def test_what_the_owner_changed_survives_a_reboot_of_the_same_instance(guest_root):
    seed = f"instance-id: i-abc12345\nlocal-hostname: web1\npublic-keys:\n  - {KEY}\n"
    read_seed(guest_root, seed, "#!/bin/sh\n")
    (guest_root / "root/.ssh/authorized_keys").write_text("mine\n")
    (guest_root / "etc/dropbear/dropbear_ed25519_host_key").write_text("kept")
    (guest_root / "var/lib/vdc-guest/user-data").unlink()
    read_seed(guest_root, seed, "#!/bin/sh\n")
    assert (guest_root / "root/.ssh/authorized_keys").read_text() == "mine\n"
    assert (guest_root / "etc/dropbear/dropbear_ed25519_host_key").read_text() == "kept"
    assert not (guest_root / "var/lib/vdc-guest/user-data").exists()


def test_a_disk_that_becomes_another_instance_forgets_keys_and_identity(guest_root):
    read_seed(guest_root, f"instance-id: i-first000\nlocal-hostname: one\npublic-keys:\n  - {KEY}\n")
    (guest_root / "etc/dropbear/dropbear_ed25519_host_key").write_text("of the first")
    read_seed(guest_root, "instance-id: i-second00\nlocal-hostname: two\n", "#!/bin/sh\n")
    assert (guest_root / "root/.ssh/authorized_keys").read_text() == ""
    assert list((guest_root / "etc/dropbear").iterdir()) == []
    assert (guest_root / "var/lib/vdc-guest/user-data").exists()
    assert (guest_root / "etc/hostname").read_text() == "two\n"


def test_user_data_that_is_no_script_is_not_kept_to_be_run(guest_root):
    read_seed(guest_root, "instance-id: i-abc12345\n", "#cloud-config\n")
    assert not (guest_root / "var/lib/vdc-guest/user-data").exists()


@pytest.fixture
def booted(guest_root: Path, tmp_path: Path) -> Iterator[subprocess.Popen]:
    """The guest's init as first process of its own namespaces; its console is the file `console`."""
    (guest_root / "dev/console").touch()
    (guest_root / "dev/null").touch()
    namespaces = ["--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--net"]
    enter = 'mount -t proc proc "$0/proc" && mount --bind /dev/null "$0/dev/null" && exec chroot "$0" /sbin/init'
    argv = ["unshare", *namespaces, "sh", "-c", enter, str(guest_root)]
    with (tmp_path / "console").open("w") as console:
        process = subprocess.Popen(
            argv, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within 30 s"
        time.sleep(0.02)


def init_of(unshared: subprocess.Popen) -> int:
    return int(Path(f"/proc/{unshared.pid}/task/{unshared.pid}/children").read_text())


def test_init_says_at_once_that_it_started_and_ends_on_sigterm(booted, tmp_path):
    console = tmp_path / "console"
    wait_until(lambda: "vdc-guest: init started" in console.read_text(), "first line")
    os.kill(init_of(booted), signal.SIGTERM)
    booted.wait(timeout=30)
    assert console.read_text().startswith("vdc-guest: init started\n")
    assert "vdc-guest: going down for poweroff" in console.read_text()
