"""Stacks on one machine: beside each other and a foreign libvirtd, killed, interrupted, gone without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
import redis

from deploy.laptop import Stack, StackError, cgroups, clean, down, machine, up
from deploy.laptop.libvirt import running_guests, virsh
from deploy.laptop.mounts import mounts_below
from deploy.laptop.stack import CLONE
from deploy.laptop.supervision import INFRASTRUCTURE, Supervisor
from tests.live.foreign_libvirtd import ForeignLibvirtd

pytestmark = pytest.mark.live

PATIENCE_S = 60

CONTAINER = """\
<domain type='lxc'>
  <name>{name}</name>
  <memory unit='MiB'>64</memory>
  <memtune><hard_limit unit='MiB'>64</hard_limit></memtune>
  <cputune><shares>512</shares><period>100000</period><quota>50000</quota></cputune>
  <os><type>exe</type><init>/bin/init</init></os>
  <features><privnet/></features>
  <devices>
    <filesystem type='mount'><source dir='{root}'/><target dir='/'/></filesystem>
    <console type='pty'/>
  </devices>
</domain>
"""
# No disk: the firmware finds nothing to boot and waits, which is all that is asked of it here.
MACHINE = """\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>64</memory>
  <cputune><shares>512</shares><period>100000</period><quota>50000</quota></cputune>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><serial type='pty'/></devices>
</domain>
"""
INIT = "#!/bin/sh\nwhile :; do /bin/busybox sleep 1; done\n"


def until(question: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not question():
        assert time.monotonic() < deadline, f"still waiting for {what}"
        time.sleep(0.05)


@pytest.fixture
def new_stack() -> Iterator[Callable[[], Stack]]:
    """Names of stacks that are cleaned away whatever happens."""
    made: list[Stack] = []

    def make() -> Stack:
        made.append(Stack(f"vdct{os.getpid()}-{len(made)}"))
        return made[-1]

    yield make
    for stack in made:
        if stack.file.exists():
            clean(stack.name)


@pytest.fixture
def root_dir(tmp_path: Path) -> Path:
    """The root file system of a container: one static busybox."""
    for name in ("bin", "proc", "sys", "dev", "tmp"):
        (tmp_path / name).mkdir()
    shutil.copy2("/bin/busybox", tmp_path / "bin" / "busybox")
    (tmp_path / "bin" / "sh").symlink_to("busybox")
    (tmp_path / "bin" / "init").write_text(INIT)
    (tmp_path / "bin" / "init").chmod(0o755)
    return tmp_path


def start_guests(stack: Stack, root_dir: Path) -> None:
    for driver, form in (("lxc", CONTAINER), ("qemu", MACHINE)):
        definition = root_dir / f"{driver}.xml"
        definition.write_text(form.format(name=f"{stack.name}-{driver}", root=root_dir))
        started = virsh(stack, driver, "create", str(definition))
        assert started.returncode == 0, started.stderr


def guests(stack: Stack) -> list[str]:
    return [*running_guests(stack, "lxc"), *running_guests(stack, "qemu")]


def supervised_pid(stack: Stack, program: str) -> int:
    return Supervisor(stack).infos()[program]["pid"]


def kill_supervisor_and_libvirtd(stack: Stack) -> None:
    libvirtd = supervised_pid(stack, "libvirtd")
    for pid in (int((stack.run_dir / "supervisord.pid").read_text()), libvirtd):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not Supervisor(stack).is_alive(), "the end of supervisord")


def ask(content: dict, statement: str) -> tuple:
    """The first row of the answer, from the database of a stack."""
    database = content["database"]
    connection = psycopg2.connect(
        host=database["HOST"],
        port=database["PORT"],
        dbname=database["NAME"],
        user=database["USER"],
        password=database["PASSWORD"],
    )
    with contextlib.closing(connection), connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()


class Traces:
    """What a stack that is up shows, to be looked for when it is down."""

    def __init__(self, stack: Stack, number: int) -> None:
        self.stack = stack
        self.number = number
        self.namespaces = {(stack.run_dir / "ns" / kind).stat().st_ino for kind in ("mnt", "cgroup")}

    def found(self) -> list[str]:
        stack = self.stack
        left = [f"mount {mount}" for place in (stack.run_dir, stack.state_dir) for mount in mounts_below(place)]
        left += [f"cgroup {top}" for top in cgroups.tops(stack) if top.exists()]
        left += [f"directory {stack.run_dir}"] if stack.run_dir.exists() else []
        left += [f"link {name}" for name in machine.host_links() if name.startswith(f"v{self.number}")]
        loops = subprocess.run(["losetup", "--list", "--noheadings"], check=True, capture_output=True, text=True)
        left += [line for line in loops.stdout.splitlines() if f"{stack.state_dir}/" in line]
        tables = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
        left += [line for line in tables.splitlines() if line.endswith(f"vdc_{stack.name.replace('-', '_')}")]
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().decode(errors="replace")
                kept = {(process / "ns" / kind).stat().st_ino for kind in ("mnt", "cgroup")}
                if f"/{stack.name}/" in words or kept & self.namespaces:
                    left.append(f"process {process.name}: {words}")
        return left


def traces(stack: Stack) -> Traces:
    return Traces(stack, json.loads(stack.file.read_text())["number"])


def test_two_stacks_run_beside_each_other_and_leave_nothing(new_stack: Callable[[], Stack], root_dir: Path):
    one, two = new_stack(), new_stack()
    contents = [up(stack.name, only="infrastructure") for stack in (one, two)]
    shown = [traces(stack) for stack in (one, two)]
    for field in ("number", "port", "files_port", "ipv4_network", "bridge", "nft_table"):
        assert contents[0][field] != contents[1][field], field
    for content in contents:
        assert ask(content, "SELECT current_user") == ("vdc",)
        assert redis.Redis(unix_socket_path=content["redis_url"].removeprefix("redis+socket://")).ping()
    start_guests(one, root_dir)
    assert len(guests(one)) == 2
    assert guests(two) == []

    down(two.name)
    assert shown[1].found() == []
    assert len(guests(one)) == 2, "one stack's end is nothing to the other"
    down(one.name)
    assert shown[0].found() == []


def test_sockets_and_secrets_are_for_root_alone(new_stack: Callable[[], Stack]):
    stack = new_stack()
    content = up(stack.name, only="infrastructure")
    assert stack.file.stat().st_mode & 0o077 == 0
    for path in (
        Path(content["libvirt_socket"]),
        stack.supervisor_socket,
        stack.run_dir / "redis",
        stack.run_dir / "ns",
    ):
        assert path.stat().st_mode & 0o077 == 0, path
    for log in stack.logs_dir.glob("*.log"):
        for secret in (content["database"]["PASSWORD"], content["secret_key"], content["operator"]["password"]):
            assert secret not in log.read_text(errors="replace"), log


def test_the_data_outlives_down_and_not_clean(new_stack: Callable[[], Stack]):
    stack = new_stack()
    before = up(stack.name, only="infrastructure")
    ask(before, "CREATE TABLE kept AS SELECT 42 AS answer; SELECT 1")
    down(stack.name)
    after = up(stack.name, only="infrastructure")
    assert {**after, "start_id": ""} == {**before, "start_id": ""}
    assert ask(after, "SELECT answer FROM kept") == (42,)
    clean(stack.name)
    assert not stack.state_dir.exists()


def test_what_is_up_stays_as_it_is(new_stack: Callable[[], Stack], capsys: pytest.CaptureFixture[str]):
    stack = new_stack()
    up(stack.name, only="infrastructure")
    pids = [supervised_pid(stack, program) for program in INFRASTRUCTURE]
    capsys.readouterr()
    up(stack.name, only="infrastructure")
    assert "is up already" in capsys.readouterr().out
    assert [supervised_pid(stack, program) for program in INFRASTRUCTURE] == pids


def test_nothing_to_stop_is_no_failure(new_stack: Callable[[], Stack]):
    stack = new_stack()
    down(stack.name)
    clean(stack.name)
    up(stack.name, only="infrastructure")
    down(stack.name)
    down(stack.name)


def test_guests_outlive_a_killed_libvirtd_and_containers_still_start(new_stack: Callable[[], Stack], root_dir: Path):
    stack = new_stack()
    up(stack.name, only="infrastructure")
    start_guests(stack, root_dir)
    before = supervised_pid(stack, "libvirtd")
    os.kill(before, signal.SIGKILL)
    until(lambda: supervised_pid(stack, "libvirtd") not in (0, before), "another libvirtd")
    until(lambda: len(guests(stack)) == 2, "libvirtd to find its guests again")
    assert virsh(stack, "lxc", "destroy", f"{stack.name}-lxc").returncode == 0
    started = virsh(stack, "lxc", "create", str(root_dir / "lxc.xml"))
    assert started.returncode == 0, started.stderr


def test_guests_outlive_a_killed_supervisor(new_stack: Callable[[], Stack], root_dir: Path):
    stack = new_stack()
    up(stack.name, only="infrastructure")
    start_guests(stack, root_dir)
    kill_supervisor_and_libvirtd(stack)
    up(stack.name, only="infrastructure")
    assert len(guests(stack)) == 2


def test_limits_of_guests_reach_their_cgroups(new_stack: Callable[[], Stack], root_dir: Path):
    stack = new_stack()
    up(stack.name, only="infrastructure")
    start_guests(stack, root_dir)
    assert "vcpu_quota     : 50000" in virsh(stack, "lxc", "schedinfo", f"{stack.name}-lxc").stdout
    assert "vcpu_quota     : 50000" in virsh(stack, "qemu", "schedinfo", f"{stack.name}-qemu").stdout
    limits = {
        file.read_text().strip()
        for top in cgroups.tops(stack)
        for name in ("memory.limit_in_bytes", "memory.max")
        for file in top.glob(f"machine/lxc-*/{name}")
    }
    assert str(64 << 20) in limits


def test_down_after_everything_was_killed_leaves_nothing(new_stack: Callable[[], Stack], root_dir: Path):
    stack = new_stack()
    content = up(stack.name, only="infrastructure")
    shown = traces(stack)
    start_guests(stack, root_dir)
    assert virsh(stack, "lxc", "suspend", f"{stack.name}-lxc").returncode == 0  # a frozen process hears no signal
    _leave_much_behind(stack, content)
    assert shown.found()
    kill_supervisor_and_libvirtd(stack)
    down(stack.name)
    assert shown.found() == []


def _leave_much_behind(stack: Stack, content: dict) -> None:
    """A bridge with a port, a firewall table, and a disk that is mounted where only the stack sees it."""
    number = content["number"]
    for link in (f"v{number}br0", f"v{number}s7n0"):
        subprocess.run(["ip", "link", "add", link, "type", "bridge"], check=True)
    subprocess.run(["nft", "add", "table", "inet", content["nft_table"]], check=True)
    disk, place = stack.state_dir / "node/volumes/disk", stack.state_dir / "node/mounts/disk"
    with disk.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    place.mkdir()
    inside = ["nsenter", f"--mount={stack.run_dir}/ns/mnt", "--"]
    subprocess.run([*inside, "mount", "-o", "loop", disk, place], check=True)
    assert not place.is_mount(), "the host sees nothing of it"


def test_an_interrupted_down_is_finished_by_the_next_up(new_stack: Callable[[], Stack], root_dir: Path):
    stack = new_stack()
    up(stack.name, only="infrastructure")
    start_guests(stack, root_dir)
    stack.going_down.touch()  # what a `down` that was killed half-way leaves
    up(stack.name, only="infrastructure")
    assert guests(stack) == []
    assert not stack.going_down.exists()


def test_an_interrupted_up_goes_on(new_stack: Callable[[], Stack]):
    stack = new_stack()
    command = [sys.executable, "-m", "deploy.laptop", "up", "--only", "infrastructure"]
    environment = {**os.environ, "VDC_NAME": stack.name}
    for cut_at in (stack.file, stack.run_dir / "ns", stack.state_dir / "postgresql.new", stack.supervisor_socket):
        with subprocess.Popen(command, cwd=CLONE, env=environment, stdout=subprocess.DEVNULL) as process:
            until(lambda: cut_at.exists() or process.poll() is not None, f"{cut_at}")  # noqa: B023 - asked at once
            process.kill()
    up(stack.name, only="infrastructure")
    shown = traces(stack)
    down(stack.name)
    assert shown.found() == []


def test_two_ups_at_once_make_one_stack(new_stack: Callable[[], Stack]):
    stack = new_stack()
    command = [sys.executable, "-m", "deploy.laptop", "up", "--only", "infrastructure"]
    environment = {**os.environ, "VDC_NAME": stack.name}
    ups = [subprocess.Popen(command, cwd=CLONE, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=PATIENCE_S)[0] for process in ups]
    assert [process.returncode for process in ups] == [0, 0], said
    assert sum("is up already" in words for words in said) == 1


def test_a_port_that_is_taken_is_said_with_its_holder_before_anything_starts(new_stack: Callable[[], Stack]):
    stack = new_stack()
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        with pytest.raises(StackError, match=rf"web cannot start: port {port} is taken by .+ \(pid {os.getpid()}\)"):
            up(stack.name, port=port)
    assert not stack.run_dir.exists()


def test_another_port_can_be_chosen_while_the_web_does_not_run(new_stack: Callable[[], Stack]):
    stack = new_stack()
    before = up(stack.name, only="infrastructure")
    after = up(stack.name, only="infrastructure", port=before["files_port"])
    assert after["port"] == before["files_port"]
    assert after["files_port"] not in (after["port"], before["files_port"])


def test_a_program_that_cannot_start_says_why(new_stack: Callable[[], Stack]):
    stack = new_stack()
    up(stack.name, only="infrastructure")
    down(stack.name)
    (stack.state_dir / "postgresql" / "global" / "pg_control").unlink()
    with pytest.raises(StackError, match=r"postgres cannot start: .*pg_control.* \(log: /var/lib/.*postgres.log\)"):
        up(stack.name, only="infrastructure")


@pytest.fixture
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForeignLibvirtd]:
    daemon = ForeignLibvirtd(tmp_path_factory.mktemp("foreign"))
    yield daemon
    daemon.stop()


def test_a_foreign_libvirtd_and_its_guests_are_left_alone(
    new_stack: Callable[[], Stack], root_dir: Path, foreign: ForeignLibvirtd
):
    for driver, form in (("lxc", CONTAINER), ("qemu", MACHINE)):
        definition = root_dir / f"foreign-{driver}.xml"
        definition.write_text(form.format(name=f"foreign-{driver}", root=root_dir))
        started = foreign.virsh(driver, "create", str(definition))
        assert started.returncode == 0, started.stderr
    before = foreign.guests()
    assert set(before) == {"foreign-lxc", "foreign-qemu"}

    stack = new_stack()
    up(stack.name, only="infrastructure")
    shown = traces(stack)
    start_guests(stack, root_dir)
    kill_supervisor_and_libvirtd(stack)
    down(stack.name)

    assert shown.found() == []
    assert foreign.guests() == before
    assert foreign.virsh("lxc", "domstate", "foreign-lxc").stdout.strip() == "running"
    assert foreign.virsh("qemu", "domstate", "foreign-qemu").stdout.strip() == "running"
    assert foreign.process.poll() is None
