"""The image store keeps what is whole and verified, and nothing of what is not."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor import free_space, image_store
from hypervisor.contract import Cancelled, Permanent, SourceSpec, Transient
from hypervisor.image_store import ImageStore
from hypervisor.sparse_writer import BLOCK_BYTES, SparseWriter
from hypervisor.unpacker import Unpacker
from hypervisor.upload_inspector import UploadInspector
from tests.hypervisor.noting_watch import NotingWatch
from tests.hypervisor.object_server import ObjectServer

MIB = 1024**2
RAW = os.urandom(2 * MIB) + bytes(5 * MIB) + b"the end"
GZ = gzip.compress(RAW, 1, mtime=0)


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with ObjectServer() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def watch() -> NotingWatch:
    return NotingWatch()


def digest(stored: bytes) -> str:
    return hashlib.sha256(stored).hexdigest()


def known(url: str, stored: bytes = GZ, raw: bytes = RAW, format: str = "gz") -> SourceSpec:
    """A source whose record is right."""
    return SourceSpec(url, format, digest(stored), len(stored), len(raw))


def unknown(url: str, format: str = "gz") -> SourceSpec:
    """A first import: nothing is known but the URL."""
    return SourceSpec(url, format, "", None, None)


def left_behind(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "images").iterdir() if path.suffix != ".lock"]


def test_a_gzip_image_is_kept_raw_and_sparse_under_its_digest(
    server: ObjectServer, store: ImageStore, watch: NotingWatch
) -> None:
    entry = store.fetch(known(server.serve("/a", GZ)), watch, tag="op-1.1")
    path = Path(entry.path)
    assert path.read_bytes() == RAW
    assert path.stat().st_blocks * 512 < 3 * MIB
    assert path.stat().st_mode & 0o777 == 0o644
    assert (entry.sha256, entry.stored_size_bytes, entry.raw_size_bytes, entry.was_present) == (
        digest(GZ),
        len(GZ),
        len(RAW),
        False,
    )


def test_the_store_knows_how_much_it_keeps(
    server: ObjectServer, store: ImageStore, watch: NotingWatch, tmp_path: Path
) -> None:
    assert store.usage() == (0, 0)
    path = Path(store.fetch(known(server.serve("/a", GZ)), watch, tag="op-1.1").path)
    (tmp_path / "images" / "half.raw.op-2.part").write_bytes(RAW)
    assert store.usage() == (1, path.stat().st_blocks * 512)
    path.unlink()
    assert store.usage() == (0, 0), "a receipt alone is no image"


def test_a_raw_image_is_kept_as_it_is(server: ObjectServer, store: ImageStore, watch: NotingWatch) -> None:
    entry = store.fetch(known(server.serve("/a", RAW), RAW, format="raw"), watch, tag="op-1.1")
    assert Path(entry.path).read_bytes() == RAW


def test_what_is_present_is_not_transferred_again(server: ObjectServer, store: ImageStore, watch: NotingWatch) -> None:
    source = known(server.serve("/a", GZ))
    first = store.fetch(source, watch, tag="op-1.1")
    second = store.fetch(source, watch, tag="op-2.1")
    assert second.was_present
    assert second.path == first.path
    assert len(server.seen) == 1


def test_an_import_without_digest_is_kept_under_the_digest_it_has(
    server: ObjectServer, store: ImageStore, watch: NotingWatch
) -> None:
    entry = store.fetch(unknown(server.serve("/a", GZ)), watch, tag="op-1.1")
    assert entry.sha256 == digest(GZ)
    assert store.entry(digest(GZ)) is not None
    again = store.fetch(unknown(server.url("/a")), watch, tag="op-2.1")  # the URL may hold something new by now
    assert again.was_present
    assert len(server.seen) == 2


def test_an_image_without_receipt_is_fetched_again(server: ObjectServer, store: ImageStore, watch: NotingWatch) -> None:
    source = known(server.serve("/a", GZ))
    entry = store.fetch(source, watch, tag="op-1.1")
    Path(entry.path + ".receipt").unlink()
    assert store.entry(entry.sha256) is None
    assert not store.fetch(source, watch, tag="op-1.2").was_present
    assert store.entry(entry.sha256) is not None


def test_progress_counts_stored_bytes_up_to_the_total(
    server: ObjectServer, store: ImageStore, watch: NotingWatch
) -> None:
    store.fetch(known(server.serve("/a", GZ)), watch, tag="op-1.1")
    assert watch.reports[-1] == (len(GZ), len(GZ), "bytes")
    done = [report[0] for report in watch.reports]
    assert done == sorted(done)
    assert watch.checkpoints >= len(RAW) // MIB


def test_the_total_of_an_unknown_object_is_what_the_server_announces(
    server: ObjectServer, store: ImageStore, watch: NotingWatch
) -> None:
    store.fetch(unknown(server.serve("/a", GZ)), watch, tag="op-1.1")
    assert watch.reports[-1] == (len(GZ), len(GZ), "bytes")


def test_a_wrong_checksum_is_said_and_nothing_is_kept(
    server: ObjectServer, store: ImageStore, watch: NotingWatch, tmp_path: Path
) -> None:
    source = SourceSpec(server.serve("/a", GZ), "gz", "0" * 64, len(GZ), len(RAW))
    with pytest.raises(Permanent, match=f"{digest(GZ)}, but the record says {'0' * 64}"):
        store.fetch(source, watch, tag="op-1.1")
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("cut", [1, 4, 9, 1000, -20])
def test_a_truncated_gzip_is_refused(
    server: ObjectServer, store: ImageStore, watch: NotingWatch, tmp_path: Path, cut: int
) -> None:
    with pytest.raises(Permanent, match="truncated"):
        store.fetch(unknown(server.serve("/a", GZ[:-cut])), watch, tag="op-1.1")
    assert left_behind(tmp_path) == []


def test_a_damaged_gzip_is_refused(server: ObjectServer, store: ImageStore, watch: NotingWatch) -> None:
    damaged = GZ[:-8] + bytes(4) + GZ[-4:]
    with pytest.raises(Permanent, match="damaged"):
        store.fetch(unknown(server.serve("/a", damaged)), watch, tag="op-1.1")


def test_gzip_members_follow_each_other(server: ObjectServer, store: ImageStore, watch: NotingWatch) -> None:
    members = gzip.compress(RAW[: MIB + 17]) + gzip.compress(b"") + gzip.compress(RAW[MIB + 17 :]) + bytes(512)
    entry = store.fetch(unknown(server.serve("/a", members)), watch, tag="op-1.1")
    assert Path(entry.path).read_bytes() == RAW


@pytest.mark.parametrize("garbage", [b"garbage" * 10, b"\x1f\x8b garbage garbage", b"\x00\x00\x01garbage of all kinds"])
def test_garbage_after_the_gzip_data_is_refused(
    server: ObjectServer, store: ImageStore, watch: NotingWatch, garbage: bytes
) -> None:
    with pytest.raises(Permanent, match="after its gzip data has ended"):
        store.fetch(unknown(server.serve("/a", GZ + garbage)), watch, tag="op-1.1")


@pytest.mark.parametrize(
    ("format", "body", "said"),
    [
        ("raw", GZ, "declared as raw, but its bytes are gzip"),
        ("gz", RAW, "declared as gz, but its bytes are not gzip"),
        ("gz", b"\xfd7zXZ\x00" + bytes(99), "declared as gz, but its bytes are xz"),
        ("raw", b"QFI\xfb" + bytes(9999), "declared as raw, but its bytes are qcow2"),
        ("gz", gzip.compress(b"QFI\xfb" + bytes(9999), mtime=0), "holds qcow2 inside"),
        ("gz", gzip.compress(GZ, mtime=0), "holds gzip inside"),
        ("gz", gzip.compress(bytes(257) + b"ustar" + bytes(999), mtime=0), "holds tar inside"),
        ("raw", b"", "is empty"),
        ("gz", b"", "is empty"),
        ("gz", b"\x1f", "not gzip"),
        ("gz", gzip.compress(b"", mtime=0), "unpacks to nothing"),
    ],
)
def test_what_is_not_what_it_claims_is_refused(
    server: ObjectServer, store: ImageStore, watch: NotingWatch, tmp_path: Path, format: str, body: bytes, said: str
) -> None:
    with pytest.raises(Permanent, match=said):
        store.fetch(unknown(server.serve("/a", body), format), watch, tag="op-1.1")
    assert left_behind(tmp_path) == []


def test_a_format_that_nobody_knows_is_refused(store: ImageStore, watch: NotingWatch) -> None:
    with pytest.raises(Permanent, match="tgz"):
        store.fetch(unknown("http://127.0.0.1/a", "tgz"), watch, tag="op-1.1")


def test_more_raw_bytes_than_recorded_stop_at_once(
    server: ObjectServer, store: ImageStore, watch: NotingWatch, tmp_path: Path
) -> None:
    bomb = gzip.compress(bytes(300 * MIB), 9)
    source = SourceSpec(server.serve("/a", bomb), "gz", digest(bomb), len(bomb), MIB)
    with pytest.raises(Permanent, match="unpacks to more than 1,048,576 bytes"):
        store.fetch(source, watch, tag="op-1.1")
    assert left_behind(tmp_path) == []


def test_fewer_raw_bytes_than_recorded_are_refused(server: ObjectServer, store: ImageStore, watch: NotingWatch) -> None:
    source = SourceSpec(server.serve("/a", GZ), "gz", digest(GZ), len(GZ), len(RAW) + 1)
    with pytest.raises(Permanent, match="unpacks to"):
        store.fetch(source, watch, tag="op-1.1")


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_server_that_offers_another_size_is_refused_before_the_transfer(
    server: ObjectServer, store: ImageStore, watch: NotingWatch, difference: int
) -> None:
    source = SourceSpec(server.serve("/a", GZ), "gz", digest(GZ), len(GZ) + difference, len(RAW))
    with pytest.raises(Permanent, match="the record says"):
        store.fetch(source, watch, tag="op-1.1")


def test_a_body_without_length_that_ends_early_may_be_tried_again(
    server: ObjectServer, store: ImageStore, watch: NotingWatch, tmp_path: Path
) -> None:
    url = server.serve("/a", RAW, length=None, first=MIB)
    with pytest.raises(Transient, match="ended after 1,048,576 of"):
        store.fetch(known(url, RAW, format="raw"), watch, tag="op-1.1")
    assert left_behind(tmp_path) == []


def test_a_line_that_is_cut_may_be_tried_again_and_then_succeeds(
    server: ObjectServer, store: ImageStore, watch: NotingWatch, tmp_path: Path
) -> None:
    source = known(server.serve("/a", GZ, first=MIB))
    with pytest.raises(Transient):
        store.fetch(source, watch, tag="op-1.1")
    assert left_behind(tmp_path) == []
    server.serve("/a", GZ)
    assert Path(store.fetch(source, watch, tag="op-1.2").path).read_bytes() == RAW


def test_a_server_that_lies_about_the_length_is_found_out(
    server: ObjectServer, store: ImageStore, watch: NotingWatch, tmp_path: Path
) -> None:
    url = server.serve("/a", GZ, length=len(GZ) + 100)  # promises more than comes
    with pytest.raises(Transient):
        store.fetch(unknown(url), watch, tag="op-1.1")
    url = server.serve("/b", RAW, length=MIB)  # sends more than it promised
    source = SourceSpec(url, "raw", digest(RAW), None, None)
    with pytest.raises(Permanent, match="SHA-256"):
        store.fetch(source, watch, tag="op-1.2")
    assert left_behind(tmp_path) == []


def test_cancelling_a_stalled_transfer_leaves_no_temporary_file(
    server: ObjectServer, store: ImageStore, watch: NotingWatch, tmp_path: Path
) -> None:
    source = known(server.stall("/a", GZ, MIB))
    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(store.fetch, source, watch, tag="op-1.1")
        assert server.stalled.wait(10)
        watch.cancelled.set()
        with pytest.raises(Cancelled):
            fetching.result(10)
    assert left_behind(tmp_path) == []


def test_two_launches_of_one_image_transfer_it_once(server: ObjectServer, store: ImageStore, tmp_path: Path) -> None:
    source = known(server.stall("/a", GZ, MIB))
    first_watch, second_watch = NotingWatch(), NotingWatch()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.fetch, source, first_watch, tag="op-1.1")
        assert server.stalled.wait(10)
        second = pool.submit(ImageStore(tmp_path / "images").fetch, source, second_watch, tag="op-2.1")
        assert second_watch.waiting.wait(10)
        server.release.set()
        assert not first.result(10).was_present
        assert second.result(10).was_present
    assert len(server.seen) == 1
    assert second_watch.reports[0][2] == "seconds"


def test_who_waits_for_another_launch_can_be_cancelled(server: ObjectServer, store: ImageStore) -> None:
    source = known(server.stall("/a", GZ, MIB))
    second_watch = NotingWatch()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.fetch, source, NotingWatch(), tag="op-1.1")
        assert server.stalled.wait(10)
        second = pool.submit(store.fetch, source, second_watch, tag="op-2.1")
        assert second_watch.waiting.wait(10)
        second_watch.cancelled.set()
        with pytest.raises(Cancelled):
            second.result(10)
        server.release.set()
        assert not first.result(10).was_present


def test_a_new_attempt_removes_what_a_killed_one_left(
    server: ObjectServer, store: ImageStore, watch: NotingWatch, tmp_path: Path
) -> None:
    stale = tmp_path / "images" / f"{digest(GZ)}.raw.op-1.1.part"
    stale.write_bytes(b"half")
    foreign = tmp_path / "images" / f"{'0' * 64}.raw.op-1.1.part"
    foreign.write_bytes(b"somebody else's")
    store.fetch(known(server.serve("/a", GZ)), watch, tag="op-1.2")
    assert not stale.exists()
    assert foreign.exists()


def test_only_parts_that_nobody_works_at_are_abandoned(
    server: ObjectServer, store: ImageStore, watch: NotingWatch, tmp_path: Path
) -> None:
    dead = tmp_path / "images" / f"{'0' * 64}.raw.op-9.1.part"
    dead.write_bytes(b"half")
    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(store.fetch, known(server.stall("/a", GZ, MIB)), watch, tag="op-1.1")
        assert server.stalled.wait(10)
        assert store.remove_abandoned_parts() == [dead.name]
        server.release.set()
        assert not fetching.result(10).was_present


def test_an_image_bigger_than_the_free_disk_is_refused_before_the_transfer(
    server: ObjectServer, store: ImageStore, watch: NotingWatch
) -> None:
    source = SourceSpec(server.serve("/a", GZ), "gz", digest(GZ), len(GZ), 2**60)
    with pytest.raises(Permanent, match=r"bytes free; fetching .* needs 1,152,921,504,606,846,976"):
        store.fetch(source, watch, tag="op-1.1")
    assert server.seen == []


def test_room_is_reclaimed_before_an_image_is_refused(
    server: ObjectServer, watch: NotingWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [len(RAW)]
    asked: list[int] = []

    def reclaim(missing: int) -> None:
        asked.append(missing)
        free[0] += missing

    monkeypatch.setattr(free_space, "free_bytes", lambda directory: free[0])
    store = ImageStore(tmp_path / "images", reclaim=reclaim)
    store.fetch(known(server.serve("/a", GZ)), watch, tag="op-1.1")
    assert asked == [free_space.RESERVE_BYTES]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "vdc-test", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills_up_is_named_and_nothing_is_left(
    server: ObjectServer, watch: NotingWatch, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_space, "RESERVE_BYTES", 0)
    store = ImageStore(small_disk / "images")
    data = gzip.compress(b"0123456789abcdef" * (MIB // 2), 9)  # small while stored, 8 MiB unpacked
    with pytest.raises(Permanent) as caught:
        store.fetch(unknown(server.serve("/a", data)), watch, tag="op-1.1")
    assert str(small_disk) in caught.value.message
    assert os.strerror(errno.ENOSPC) in caught.value.message
    assert "Free some space" in caught.value.advice
    assert not list((small_disk / "images").glob("*.part"))


def test_a_disk_that_others_fill_meanwhile_stops_a_transfer_before_it_is_full(
    server: ObjectServer, store: ImageStore, watch: NotingWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_store, "ROOM_STEP_BYTES", MIB)
    free = iter([10**12])
    monkeypatch.setattr(free_space, "free_bytes", lambda directory: next(free, 1000))
    with pytest.raises(Permanent, match="has 1,000 bytes free"):
        store.fetch(known(server.serve("/a", GZ)), watch, tag="op-1.1")
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("sha256", ["../../etc/passwd", "A" * 64, "0" * 63])
def test_what_is_no_digest_is_refused(store: ImageStore, watch: NotingWatch, sha256: str) -> None:
    with pytest.raises(Permanent, match="not a SHA-256"):
        store.fetch(SourceSpec("http://127.0.0.1/", "raw", sha256, None, None), watch, tag="op-1.1")


def test_no_thread_outlives_a_transfer(server: ObjectServer, store: ImageStore, watch: NotingWatch) -> None:
    store.fetch(known(server.serve("/a", GZ)), watch, tag="op-1.1")
    with pytest.raises(Permanent):
        store.fetch(unknown(server.serve("/b", RAW)), watch, tag="op-1.2")
    for thread in threading.enumerate():
        if thread.name.startswith(("image-", "disk-")):
            thread.join(10)
            assert not thread.is_alive()


ROOT = Path(image_store.__file__).parents[1]
FETCH = """
import sys
from pathlib import Path
from hypervisor.contract import SourceSpec
from hypervisor.image_store import ImageStore
from tests.hypervisor.noting_watch import NotingWatch
ImageStore(Path(sys.argv[1])).fetch(SourceSpec(sys.argv[2], "gz", "", None, None), NotingWatch(), tag="op-1.1")
"""


def test_a_killed_process_leaves_no_lock_and_its_part_goes_with_the_next_attempt(
    server: ObjectServer, store: ImageStore, watch: NotingWatch, tmp_path: Path
) -> None:
    url = server.stall("/a", GZ, MIB)
    victim = subprocess.Popen([sys.executable, "-c", FETCH, str(tmp_path / "images"), url], cwd=ROOT)
    try:
        assert server.stalled.wait(60)
    finally:
        victim.kill()
        victim.wait(30)
    assert any(name.endswith(".op-1.1.part") for name in left_behind(tmp_path))
    server.serve("/a", GZ)
    entry = store.fetch(unknown(url), watch, tag="op-1.2")
    assert Path(entry.path).read_bytes() == RAW
    assert not [name for name in left_behind(tmp_path) if name.endswith(".part")]
    assert {unit for _, _, unit in watch.reports} == {"bytes"}  # nobody had to be waited for


TELL_PEAK_MEMORY = """
# Not ru_maxrss: after a fork and exec it still counts the parent.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


def test_memory_does_not_grow_with_the_image(server: ObjectServer, tmp_path: Path) -> None:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    noise, zeros = os.urandom(MIB), bytes(MIB)
    body = b"".join(packer.compress(piece) for piece in [noise] * 150 + [zeros] * 300) + packer.flush()
    program = FETCH + TELL_PEAK_MEMORY
    command = [sys.executable, "-c", program, str(tmp_path / "images"), server.serve("/a", body)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout.splitlines()[-1]) < 100 * 1024  # KiB


pieces = st.lists(
    st.one_of(
        st.binary(min_size=0, max_size=300),
        st.sampled_from([1, 511, BLOCK_BYTES - 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 5]).map(bytes),
        st.sampled_from([1, BLOCK_BYTES, 2 * BLOCK_BYTES + 77]).map(lambda count: b"\xaa" * count),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(pieces=pieces)
def test_a_sparse_file_reads_like_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("sparse") / "disk"
    with SparseWriter(path) as writer:
        for piece in pieces:
            writer.write(piece)
        size_bytes = writer.finish(mode=0o600)
    content = b"".join(pieces)
    assert size_bytes == len(content)
    assert path.read_bytes() == content
    path.unlink()


@settings(max_examples=60, deadline=None)
@given(pieces=pieces, step=st.sampled_from([1, 2, 7, 64, 4096, 10**6]), level=st.integers(0, 9))
def test_gzip_unpacks_to_what_was_packed_however_it_is_cut(pieces: list[bytes], step: int, level: int) -> None:
    content = b"\xaa" + b"".join(pieces)
    stored = gzip.compress(content, level)
    step = max(step, len(stored) // 2000)
    unpacker = Unpacker("gz", "it", raw_limit_bytes=len(content))
    found = [piece for start in range(0, len(stored), step) for piece in unpacker.feed(stored[start : start + step])]
    unpacker.finish()
    assert b"".join(found) == content
    assert (unpacker.stored_size_bytes, unpacker.raw_size_bytes) == (len(stored), len(content))


@settings(max_examples=60, deadline=None)
@given(content=st.binary(min_size=1, max_size=2000), at=st.integers(0, 10**6), value=st.integers(1, 255))
def test_a_flipped_byte_never_passes_as_other_content(content: bytes, at: int, value: int) -> None:
    stored = bytearray(gzip.compress(b"\xaa" + content))
    stored[at % len(stored)] ^= value
    unpacker = Unpacker("gz", "it", raw_limit_bytes=MIB)
    try:
        found = b"".join(unpacker.feed(bytes(stored)))
        unpacker.finish()
    except Permanent:
        return
    assert found == b"\xaa" + content  # the byte was in a field that says nothing about the content


def test_an_inspected_upload_is_known_without_being_written() -> None:
    inspector = UploadInspector("gz")
    for start in range(0, len(GZ), 10_000):
        inspector.feed(GZ[start : start + 10_000])
    found = inspector.finish()
    assert (found.sha256, found.stored_size_bytes, found.raw_size_bytes) == (digest(GZ), len(GZ), len(RAW))


def test_an_inspected_upload_that_is_truncated_is_refused() -> None:
    inspector = UploadInspector("gz")
    inspector.feed(GZ[:-10])
    with pytest.raises(Permanent, match="The upload is truncated"):
        inspector.finish()


def test_an_inspected_upload_of_another_format_is_refused_at_its_first_bytes() -> None:
    with pytest.raises(Permanent, match="declared as raw, but its bytes are gzip"):
        UploadInspector("raw").feed(GZ[:512])


def test_an_inspected_gzip_bomb_stops_at_the_limit() -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    inspector = UploadInspector("gz", raw_limit_bytes=10 * MIB)
    with pytest.raises(Permanent, match="more than 10,485,760 bytes"):
        for _ in range(20):
            inspector.feed(bomb.compress(bytes(MIB)) + bomb.flush(zlib.Z_FULL_FLUSH))
