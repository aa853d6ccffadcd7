"""A whole data center for the live tests: a stack of its own, spoken to over HTTP, by `vdc`, and behind its back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psycopg2
import psycopg2.extras

from deploy.guests.build import build_images
from deploy.laptop import Stack, clean, down, up
from deploy.laptop.claim import claim
from deploy.laptop.libvirt import virsh
from deploy.laptop.stack import CLONE
from deploy.laptop.supervision import Supervisor

PATIENCE_S = 120.0
LOOK_EVERY_S = 0.1
# Leases, heartbeats and their deadlines are half as long as usual, so that nobody waits half a minute for a lost one.
TIME_SCALE = 0.5
GUEST_IMAGES = CLONE / "build" / "guests"
ENDED = ("done", "failed", "cancelled")

T = TypeVar("T")


def until(question: Callable[[], T], what: str, within_s: float = PATIENCE_S) -> T:
    """Ask until the answer is true; returns it."""
    deadline = time.monotonic() + within_s
    while not (answer := question()):
        assert time.monotonic() < deadline, f"still waiting for {what}"
        time.sleep(LOOK_EVERY_S)
    return answer


class Api:
    """The HTTP API with one token; `get`, `post`, `delete` insist on success and return the document."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self.token = token
        self._client = httpx.Client(
            base_url=f"{url}/api/v1/",
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
            trust_env=False,
        )

    def ask(self, method: str, path: str, **rest: Any) -> httpx.Response:
        return self._client.request(method, path, **rest)

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        return self._good(self.ask("GET", path, params=params))

    def items(self, path: str, **params: Any) -> list[dict[str, Any]]:
        return self.get(path, limit=200, **params)["items"]

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._good(self.ask("POST", path, json=body or {}))

    def verb(self, instance: str, verb: str, **body: Any) -> str:
        """Ask for a verb, which must be accepted; returns the operation's id."""
        return self.post(f"instances/{instance}/{verb}", body)["operation"]["id"]

    def close(self) -> None:
        self._client.close()

    def _good(self, answer: httpx.Response) -> dict[str, Any]:
        assert answer.is_success, f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
        return answer.json()


@dataclass(frozen=True)
class Guest:
    """An instance as seen from outside: by its address."""

    id: str
    hostname: str
    hypervisor: str
    address: str
    private_key: Path

    def http(self) -> str:
        return httpx.get(f"http://{self.address}/", timeout=5, trust_env=False).text

    def answers(self) -> bool:
        try:
            return "hello from" in self.http()
        except httpx.HTTPError:
            return False

    def ssh(self, command: str) -> str:
        """What a command of the guest's shell prints. Tried again while ssh itself does not come through."""
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
        options += ["ConnectTimeout=5", "ServerAliveInterval=3", "ServerAliveCountMax=2"]
        words = ["ssh", "-q", "-i", str(self.private_key), *(f"-o{option}" for option in options)]
        words += [f"root@{self.address}", command]
        deadline = time.monotonic() + PATIENCE_S
        while True:
            done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
            if done.returncode != 255:
                assert done.returncode == 0, f"{command!r} in {self.hostname}: {done.stdout}{done.stderr}"
                return done.stdout.strip()
            assert time.monotonic() < deadline, f"ssh to {self.hostname} ({self.address}): {done.stderr}"
            time.sleep(LOOK_EVERY_S)

    def ssh_and_leave(self, command: str) -> None:
        """Have the guest run a command in a moment, which may end the guest and so the connection."""
        self.ssh(f"(sleep 0.3; {command}) >/dev/null 2>&1 </dev/null &")


class DataCenter:
    """One stack. `api` carries an operator's token, `tenant` a member's."""

    def __init__(self, name: str, scratch: Path, **settings: Any) -> None:
        self.stack = Stack(name)
        self.settings = {"time_scale": TIME_SCALE, **settings}  # of its stack file
        self.scratch = scratch
        self.private_key = scratch / "key"
        self.content: dict[str, Any] = {}
        self.manifest: dict[str, dict[str, Any]] = {}  # facts of the guest images, by hypervisor
        self.images: dict[str, str] = {}  # id of the registered guest image, by hypervisor
        self.key = ""
        self._apis: list[Api] = []

    # --- the stack ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """From nothing to a node that takes instances, with both guest images and a key registered."""
        self.stack.write(claim(self.stack) | self.settings)
        self.up()
        self.api, self.tenant = self._api("operator", "--operator"), self._api("tenant")
        facts = build_images(GUEST_IMAGES, print)["images"]
        self.manifest = {image["hypervisor"]: image for image in facts}
        self.images = {kind: self.upload_guest_image(kind)["id"] for kind in self.manifest}
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "live", "-f", str(self.private_key)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        public_key = self.private_key.with_suffix(".pub").read_text()
        self.key = self.api.post("ssh-key-pairs", {"name": "live", "public_key": public_key})["id"]

    def up(self) -> None:
        self.content = up(self.stack.name)
        until(lambda: self.node_row()["status"] == "online", "the node to be online")

    def down(self) -> None:
        down(self.stack.name)

    def clean(self) -> None:
        for api in self._apis:
            api.close()
        clean(self.stack.name)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.content['port']}"

    @property
    def node_dir(self) -> Path:
        return self.stack.state_dir / "node"

    def _api(self, name: str, *options: str) -> Api:
        words = ["--account", "demo", "--issuer", self.content["operator"]["username"], "--name", name, *options]
        done = subprocess.run(
            [sys.executable, "manage.py", "issue_token", *words],
            cwd=CLONE,
            env=self.stack.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        self._apis.append(Api(self.url, done.stdout.strip()))
        return self._apis[-1]

    # --- asking for things -------------------------------------------------------------------------------------

    def upload_guest_image(self, hypervisor: str, content: bytes | None = None) -> dict[str, Any]:
        """Upload and register a guest image (or another content of its kind) as a person would by hand."""
        facts = self.manifest[hypervisor]
        content = content if content is not None else (GUEST_IMAGES / facts["file"]).read_bytes()
        stored = self.api.post("backup-objects", {"format": "gz"})["id"]
        answer = self.api.ask("PUT", f"backup-objects/{stored}/content", content=content, timeout=120)
        assert answer.status_code == 200, answer.text
        return self.api.post("images", {"backup_object": stored, **self.image_facts(hypervisor)})

    def image_facts(self, hypervisor: str) -> dict[str, Any]:
        facts = self.manifest[hypervisor]
        return {"name": facts["name"], **{key: facts[key] for key in ("arch", "hypervisor", "init", "root_device")}}

    def other_guest_image(self, hypervisor: str, mark: int) -> bytes:
        """The guest image with another time in its gzip header: other stored bytes, so no store has it yet."""
        content = bytearray((GUEST_IMAGES / self.manifest[hypervisor]["file"]).read_bytes())
        content[4:8] = mark.to_bytes(4, "little")
        return bytes(content)

    def create(self, hypervisor: str, hostname: str, **wish: Any) -> dict[str, Any]:
        """Ask for an instance; returns the document of the 202."""
        memory_mib = max(self.manifest[hypervisor]["min_memory_mib"], 32) + 32
        body = {"image": self.images[hypervisor], "memory_mib": memory_mib, "hostname": hostname}
        return self.api.post("instances", {**body, "ssh_keys": [self.key], **wish})

    def launch(self, hypervisor: str, hostname: str, **wish: Any) -> Guest:
        """An instance that runs and answers."""
        asked = self.create(hypervisor, hostname, **wish)
        self.done(asked["operation"]["id"])
        guest = self.guest(asked["id"])
        until(guest.answers, f"{hostname} to answer HTTP")
        return guest

    def guest(self, uid: str) -> Guest:
        row = self.instance(uid)
        return Guest(uid, row["hostname"], row["hypervisor"], row["addresses"][0], self.private_key)

    def terminate(self, uid: str) -> None:
        """End an instance, whatever it is doing."""
        if self.instance(uid)["state"] != "terminated":
            self.done(self.api.verb(uid, "terminate"))

    def instance(self, uid: str) -> dict[str, Any]:
        return self.api.get(f"instances/{uid}")

    def node(self) -> dict[str, Any]:
        """This machine's own; a fleet may be beside it."""
        return next(node for node in self.api.items("nodes") if node["hypervisors"] != ["fake"])

    def operation(self, uid: str) -> dict[str, Any]:
        return self.api.get(f"operations/{uid}")

    def ended(self, uid: str) -> dict[str, Any]:
        """The story of an operation when it has ended, however it did."""

        def over() -> dict[str, Any] | None:
            story = self.operation(uid)
            return story if story["state"] in ENDED else None

        return until(over, f"the end of {uid}")

    def done(self, uid: str) -> dict[str, Any]:
        """The story of an operation that must end well."""
        story = self.ended(uid)
        assert story["state"] == "done", json.dumps(story, indent=1)
        return story

    def vdc(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command line as a person would, logged in by the environment."""
        return subprocess.run(
            [str(Path(sys.executable).with_name("vdc")), *words],
            env={"PATH": os.environ["PATH"], "VDC_URL": self.url, "VDC_TOKEN": self.api.token},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    # --- the record --------------------------------------------------------------------------------------------

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Rows of the stack's own database; the only way to what no door shows, and to change what a door would not."""
        database = self.content["database"]
        connection = psycopg2.connect(
            host=database["HOST"],
            port=database["PORT"],
            dbname=database["NAME"],
            user=database["USER"],
            password=database["PASSWORD"],
            cursor_factory=psycopg2.extras.RealDictCursor,
        )
        with contextlib.closing(connection), connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return [dict(row) for row in cursor.fetchall()] if cursor.description else []

    def node_row(self) -> dict[str, Any]:
        nodes = self.sql("SELECT * FROM hypervisor_node JOIN hypervisor_nodepulse ON node_id = id")
        return next(node for node in nodes if node["hypervisors"] != ["fake"])

    def events(self, subject: str, name: str = "") -> list[dict[str, Any]]:
        """What happened to a subject, oldest first; `created_at` has a time zone."""
        rows = self.sql("SELECT * FROM operations_event WHERE subject_uid = %s ORDER BY id", subject)
        return [row for row in rows if not name or row["name"] == name]

    @contextlib.contextmanager
    def storage_behind(self, url: str) -> Iterator[None]:
        """Inside of this block the node's files server is found at another address."""
        node = self.node_row()
        self.sql("UPDATE hypervisor_node SET files_url = %s WHERE id = %s", url, node["id"])
        try:
            yield
        finally:
            self.sql("UPDATE hypervisor_node SET files_url = %s WHERE id = %s", node["files_url"], node["id"])

    # --- behind its back ---------------------------------------------------------------------------------------

    def pid(self, program: str) -> int:
        return Supervisor(self.stack).infos()[program]["pid"]

    def kill(self, program: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a program of the stack; returns when supervisor has started it anew."""
        before = self.pid(program)
        os.kill(before, number)
        until(lambda: self.pid(program) not in (0, before), f"{program} to be started anew")

    def kill_frozen(self, program: str) -> None:
        """End a program that stands still; supervisor starts it anew at once."""
        os.kill(self.pid(program), signal.SIGKILL)

    @contextlib.contextmanager
    def frozen_postgresql(self) -> Iterator[None]:
        """PostgreSQL and all its backends are mute inside of this block."""
        with self._stopped([self.pid("postgres")]):
            yield

    @contextlib.contextmanager
    def frozen(self, program: str) -> Iterator[None]:
        """A program of the stack stands still inside of this block."""
        with self._stopped([self.pid(program)]):
            yield

    @contextlib.contextmanager
    def _stopped(self, pids: list[int]) -> Iterator[None]:
        stopped = []
        try:
            while pids:  # the parent first, so that it makes no more children
                pid = pids.pop()
                os.kill(pid, signal.SIGSTOP)
                stopped.append(pid)
                pids += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
            yield
        finally:
            for pid in reversed(stopped):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def virsh(self, hypervisor: str, *words: str) -> subprocess.CompletedProcess[str]:
        return virsh(self.stack, {"kvm": "qemu", "lxc": "lxc"}[hypervisor], *words)

    def domains(self) -> str:
        """The names of all domains that libvirt knows."""
        return "\n".join(self.virsh(kind, "list", "--all", "--name").stdout for kind in ("kvm", "lxc"))

    def guest_pid(self, guest: Guest) -> int:
        """The process that is the guest: QEMU, or the init of a container, in the numbers of this machine."""
        if guest.hypervisor == "kvm":
            return int((self.stack.run_dir / "libvirt" / "qemu" / f"{guest.id}.pid").read_text())
        controller = int((self.stack.run_dir / "libvirt" / "lxc" / f"{guest.id}.pid").read_text())
        children = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
        return next(int(child) for child in children if _is_init(int(child)))

    def run_inside(self, *words: str) -> None:
        """Run a command in the mount namespace of the stack."""
        subprocess.run(["nsenter", f"--mount={self.stack.run_dir}/ns/mnt", "--", *words], check=True)

    def python_inside(self, statements: str) -> None:
        """Run our own code as a process of the node would: in the mount namespace of the stack."""
        command = ["nsenter", f"--mount={self.stack.run_dir}/ns/mnt", f"--wdns={CLONE}", "--"]
        subprocess.run([*command, sys.executable, "-c", statements], check=True, env=self.stack.environment())


def _is_init(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
    return len(numbers) > 2 and numbers[-1] == "1"
