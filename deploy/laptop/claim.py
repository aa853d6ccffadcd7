"""Taking a stack's name for this clone: number, network, ports and secrets, made once and kept."""

from __future__ import annotations

import secrets
import socket
import uuid
from pathlib import Path
from typing import Any

from deploy.laptop import machine
from deploy.laptop.stack import CLONE, Stack, StackError


def owned(stack: Stack) -> dict[str, Any] | None:
    """The stack file if this clone may use it, None if the name is free. Raises StackError if it is another's."""
    content = stack.read()
    if content is None:
        return None
    owner = Path(content["clone"])
    if owner != CLONE and (owner / "deploy" / "laptop").is_dir():
        raise StackError(
            f"The stack {stack.name!r} belongs to the clone in {owner}; "
            "work there, or choose another name with VDC_NAME."
        )
    return content


def claim(stack: Stack, port: int | None = None) -> dict[str, Any]:
    """Returns the stack file, made if it was missing. `port` is the caller's wish for the web's port."""
    with machine.lock("machine"):
        content = owned(stack)
        if content is None:
            _refuse_foreign_directories(stack)
            content = fresh(stack, port)
        elif port is not None and port != content["port"]:
            _refuse_kept_port(stack, port)
            content["port"] = port
            if content["files_port"] == port:
                content["files_port"] = machine.free_port(port, machine.other_stacks(stack.name))
        if content["clone"] != str(CLONE) and stack.run_dir.is_dir():
            stack.going_down.touch()  # its clone is gone: what still runs was started from files that are no more
        content["clone"] = str(CLONE)
        content["node_name"] = socket.gethostname()
        stack.state_dir.mkdir(mode=0o755, exist_ok=True)
        stack.write(content)
    return content


def move_files_port(stack: Stack, content: dict[str, Any]) -> dict[str, Any]:
    """Takes another free port for the backup storage, which nobody outside of the stack needs to know."""
    with machine.lock("machine"):
        content = content | {"files_port": machine.free_port(content["port"], machine.other_stacks(stack.name))}
        stack.write(content)
    return content


def renew_start_id(stack: Stack, content: dict[str, Any]) -> dict[str, Any]:
    """A node that sees a new start id rebuilds its networks and starts the guests that are wanted running."""
    content = content | {"start_id": str(uuid.uuid4())}
    stack.write(content)
    return content


def _refuse_foreign_directories(stack: Stack) -> None:
    """A name such as `redis` or `lock` would make a directory of the system ours, and `clean` would remove it."""
    begun = {stack.file.with_suffix(".new")}  # an interrupted first claim
    strange = [stack.state_dir] if stack.state_dir.exists() and set(stack.state_dir.iterdir()) - begun else []
    strange += [stack.run_dir] if stack.run_dir.exists() else []
    for directory in strange:
        raise StackError(f"{directory} exists and is no stack of ours; choose another name with VDC_NAME.")


def _refuse_kept_port(stack: Stack, port: int) -> None:
    for name, other in machine.other_stacks(stack.name).items():
        if port in (other.get("port"), other.get("files_port")):
            raise StackError(f"Port {port} is kept by the stack {name!r}; choose another with VDC_PORT.")


def fresh(stack: Stack, port: int | None) -> dict[str, Any]:
    """The content of a new stack file, with what is free on this machine now."""
    others = machine.other_stacks(stack.name)
    number = machine.free_number(others)
    if port is not None:
        _refuse_kept_port(stack, port)
    elif stack.name == "vdc":
        port = machine.FIRST_PORT
    else:
        port = machine.free_port(machine.FIRST_PORT, others)
    return {
        "name": stack.name,
        "number": number,
        "clone": str(CLONE),
        "start_id": str(uuid.uuid4()),
        "port": port,
        "files_port": machine.free_port(port, others),
        "files_token": secrets.token_urlsafe(32),
        "secret_key": secrets.token_urlsafe(64),
        "database": {
            "HOST": f"{stack.run_dir}/postgresql",
            "PORT": "5432",
            "NAME": "vdc",
            "USER": "vdc",
            "PASSWORD": secrets.token_urlsafe(24),
        },
        "redis_url": f"redis+socket://{stack.run_dir}/redis/redis.sock",
        "libvirt_socket": f"{stack.run_dir}/libvirt/libvirt-sock",
        "ipv4_network": machine.free_network(number, others),
        "bridge": f"v{number}br0",
        "nft_table": f"vdc_{stack.name.replace('-', '_')}",
        "operator": {"username": "admin", "password": secrets.token_urlsafe(12)},
        "state_dir": str(stack.state_dir),
        "run_dir": str(stack.run_dir),
        "node_name": socket.gethostname(),
    }
