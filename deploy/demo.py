"""`python -m deploy.demo`: one LXC and one KVM instance in a stack that is up, and where to look.

Everything is asked for as a user would, by the `vdc` command; run again, it finds what is there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from deploy.guests.build import build_images
from deploy.guests.command import BuildError
from deploy.laptop.claim import owned
from deploy.laptop.stack import CLONE, Stack, StackError
from deploy.laptop.starting import manage
from deploy.stages import stage

LOGIN_FILE = Path(sys.prefix) / "vdc-login.json"
GUESTS = CLONE / "build" / "guests"
ANSWER_WITHIN_S = 240
LOOK_EVERY_S = 0.5
LOOK_WITHIN_S = 2
KEY_NAME = "demo"
USELESS = ("terminated", "error")


class DemoError(Exception):
    """One sentence: what did not work, and where to look."""


def vdc(*words: str) -> Any:
    """Run a `vdc` command that prints JSON; what it says of its progress goes to the terminal."""
    done = subprocess.run([_vdc(), *words, "-o", "json"], stdout=subprocess.PIPE, check=False, env=_environment())
    if done.returncode != 0:
        raise DemoError(f"`vdc {' '.join(words)}` failed; what it said stands above.")
    return json.loads(done.stdout)


def _vdc() -> str:
    return str(Path(sys.prefix) / "bin" / "vdc")


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("VDC_URL", "VDC_TOKEN")}


def items(noun: str) -> list[dict[str, Any]]:
    """Every object of a noun."""
    answer = vdc(noun, "list", "--limit", "0")
    return answer["items"] if isinstance(answer, dict) else answer


def demo(name: str) -> None:
    """Bring everything about; raises DemoError, StackError or BuildError with one sentence."""
    stack = Stack(name)
    content = owned(stack)
    if content is None:
        raise StackError(f"There is no stack {name!r}; `make up` first.")
    url = f"http://127.0.0.1:{content['port']}"
    operator = content["operator"]["username"]
    words = ["--account", "demo", "--issuer", operator, "--name", "demo", "--role", "owner", "--operator"]
    login = ["--login-file", str(LOGIN_FILE), "--url", url]
    manage(stack, "login", "a token for the command line", "issue_token", *words, *login)
    with stage("guests", "build two small guest images from Debian packages") as progress:
        manifest = build_images(GUESTS, lambda line: setattr(progress, "note", line.strip()))
    private_key, key_id = _key(stack)
    addresses = {}
    for facts in manifest["images"]:
        instance = _instance(facts, _image(facts), key_id)
        addresses[facts["hypervisor"]] = instance["addresses"][0]
    ssh_config = _write_ssh_config(stack, addresses, private_key)
    for hypervisor, address in addresses.items():
        _await_answer(hypervisor, address, ssh_config)
    _say_where_to_look(content, url, addresses, ssh_config)


def _key(stack: Stack) -> tuple[Path, str]:
    """The demo's own ssh key, made once and imported once."""
    private_key = stack.state_dir / "demo-key"
    public_key = private_key.with_name("demo-key.pub")
    if not public_key.exists():
        private_key.unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f", str(private_key)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    wanted = public_key.read_text().split()[1]
    for key in items("key"):
        if wanted in key["public_key"]:
            return private_key, key["id"]
    return private_key, vdc("key", "import", str(public_key), "--name", KEY_NAME)["id"]


def _image(facts: dict[str, Any]) -> str:
    for image in items("image"):
        if image["sha256"] == facts["sha256"] and image["state"] == "available":
            return image["id"]
    options = ["--name", facts["name"], "--hypervisor", facts["hypervisor"], "--arch", facts["arch"], "--public"]
    if facts["init"]:
        options += ["--init", facts["init"]]
    if facts["root_device"]:
        options += ["--root-device", facts["root_device"]]
    return vdc("image", "import", str(GUESTS / facts["file"]), *options)["id"]


def _instance(facts: dict[str, Any], image: str, key_id: str) -> dict[str, Any]:
    hostname = f"demo-{facts['hypervisor']}"
    for found in items("instance"):
        if found["hostname"] == hostname and found["state"] not in USELESS:
            return _running(found)
    memory_mib = str(max(facts["min_memory_mib"], 128) + 32)
    options = ["--image", image, "--hostname", hostname, "--memory-mib", memory_mib, "--ssh-key", key_id, "--wait"]
    return vdc("instance", "create", *options)


def _running(instance: dict[str, Any]) -> dict[str, Any]:
    """The same instance, running: what is in motion is waited for, what is halted is started."""
    uid = instance["id"]
    if instance["operation"]:
        subprocess.run([_vdc(), "operation", "watch", instance["operation"]], check=False, env=_environment())
        instance = vdc("instance", "show", uid)
    if instance["state"] == "halted":
        return vdc("instance", "poweron", uid, "--wait")
    return instance


def _write_ssh_config(stack: Stack, addresses: dict[str, str], private_key: Path) -> Path:
    """Makes `ssh -F <file> demo-lxc` work. Addresses go from guest to guest, so host keys are not remembered."""
    path = stack.state_dir / "demo-ssh-config"
    hosts = (
        f"Host demo-{hypervisor}\n  HostName {address}\n  User root\n  IdentityFile {private_key}\n"
        for hypervisor, address in addresses.items()
    )
    rest = (
        "Host *\n  IdentitiesOnly yes\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
    )
    path.write_text("".join(hosts) + rest)
    return path


def _await_answer(hypervisor: str, address: str, ssh_config: Path) -> None:
    with stage(hypervisor, f"wait until {address} answers HTTP and ssh"):
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while time.monotonic() < deadline:
            if _answers_http(address) and _answers_ssh(f"demo-{hypervisor}", ssh_config):
                return
            time.sleep(LOOK_EVERY_S)
        raise DemoError(
            f"The {hypervisor} guest at {address} did not answer within {ANSWER_WITHIN_S} s; "
            "`.venv/bin/vdc instance list` and `.venv/bin/vdc instance console-log` say what it does."
        )


def _answers_http(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=LOOK_WITHIN_S) as answer:
            return answer.status == 200
    except OSError:
        return False


def _answers_ssh(host: str, ssh_config: Path) -> bool:
    limits = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={LOOK_WITHIN_S}"]
    asked = subprocess.run(
        ["ssh", "-F", str(ssh_config), *limits, host, "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return asked.returncode == 0


def _say_where_to_look(content: dict[str, Any], url: str, addresses: dict[str, str], ssh_config: Path) -> None:
    operator = content["operator"]
    warnings = [warning for node in items("node") for warning in node["warnings"]]
    print(f"""
The data center {content["name"]!r} is up.

  admin    {url}/admin/   user {operator["username"]}, password {operator["password"]}
  API      {url}/api/v1/   (the command line is logged in)
  LXC      http://{addresses["lxc"]}/
  KVM      http://{addresses["kvm"]}/

Worth trying:

  .venv/bin/vdc instance list
  .venv/bin/vdc operation list
  ssh -F {ssh_config} demo-lxc

`make down` stops it all and keeps the data; `make demo` brings it back.""")
    for warning in warnings:
        print(f"\nNote: {warning}")


def main() -> int:
    try:
        demo(os.environ.get("VDC_NAME") or "vdc")
    except (DemoError, StackError, BuildError) as exc:
        print(f"vdc: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nvdc: interrupted; `make demo` goes on where this ended.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
