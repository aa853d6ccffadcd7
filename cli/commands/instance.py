"""`vdc instance`: create, look at, switch, end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.commands.options import InstanceId, LimitOption, Output, OutputOption, WaitOption, checked_id
from cli.commands.session import DEFAULT_LIMIT, api, conclude, show_list, show_one
from cli.errors import WrongUse
from cli.render.columns import INSTANCES
from cli.render.sheets import instance_sheet
from cli.render.units import parse_size
from cli.render.words import harmless

app = typer.Typer(help="Guests: create them, look at them, switch them on and off.", no_args_is_help=True)


def _checked_ids(values: list[str] | None) -> list[str] | None:
    return [checked_id(value) or "" for value in values] if values else values


@app.command()
def create(
    image: Annotated[str, typer.Option(metavar="IMAGE", help="Id of the image to start from.", callback=checked_id)],
    name: Annotated[str | None, typer.Option(help="For people; need not be unique.")] = None,
    hostname: Annotated[str | None, typer.Option(help="What the guest calls itself.")] = None,
    vcpus: Annotated[int | None, typer.Option(min=1, help="Default: 1.")] = None,
    memory_mib: Annotated[int | None, typer.Option(min=1, metavar="MIB", help="Default: 256.")] = None,
    volume_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of the boot volume, like 10GiB. Default: as the image.")
    ] = None,
    ssh_key: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Id of a key that may log in; may be repeated.", callback=_checked_ids),
    ] = None,
    user_data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A text that the guest finds at its first start; - is stdin.")
    ] = None,
    node: Annotated[
        str | None, typer.Option(metavar="NODE", help="Only this node (operators).", callback=checked_id)
    ] = None,
    wait: WaitOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Create an instance and start it.

    \b
    vdc instance create --image wmi-demolxc1 --wait
    vdc instance create --image wmi-demokvm1 --name web --memory-mib 512 \\
        --volume-size 4GiB --ssh-key ssh-5m2p8q1r --user-data setup.sh --wait
    """
    body: dict[str, Any] = {
        "image": image,
        "name": name,
        "hostname": hostname,
        "vcpus": vcpus,
        "memory_mib": memory_mib,
        "volume_size_bytes": parse_size(volume_size) if volume_size else None,
        "ssh_keys": ssh_key or None,
        "user_data": _text_of(user_data) if user_data else None,
        "node": node,
    }
    with api() as client:
        instance = client.post("instances", {key: value for key, value in body.items() if value is not None})
        conclude(client, f"instances/{instance['id']}", instance, output=output, wait=wait)


@app.command("list")
def list_(limit: LimitOption = DEFAULT_LIMIT, output: OutputOption = Output.TABLE) -> None:
    """List the instances, newest first.

    \b
    vdc instance list
    vdc instance list -o json | jq -r '.[].addresses[]'
    """
    show_list("instances", INSTANCES, output=output, limit=limit)


@app.command()
def show(instance: InstanceId, output: OutputOption = Output.TABLE) -> None:
    """Show one instance.

    Its state and what its node sees, its addresses and disks, its error, and what may be done with it now.
    """
    show_one(f"instances/{instance}", instance_sheet, output=output)


@app.command()
def poweroff(
    instance: InstanceId,
    force: Annotated[bool, typer.Option("--force", help="At once, as if the plug were pulled.")] = False,
    timeout_s: Annotated[
        int | None, typer.Option(min=1, metavar="S", help="How long the guest may take before it is forced off.")
    ] = None,
    wait: WaitOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Switch an instance off, in order.

    It keeps its place, disks and addresses. --force may also be asked for while an orderly power-off hangs: it takes
    over.

    \b
    vdc instance poweroff i-7d2kq9xw --timeout-s 30 --wait
    vdc instance poweroff i-7d2kq9xw --force
    """
    body: dict[str, Any] = {"force": True} if force else {}
    if timeout_s is not None:
        body["timeout_s"] = timeout_s
    _do("poweroff", instance, body, wait=wait, output=output)


@app.command()
def poweron(instance: InstanceId, wait: WaitOption = False, output: OutputOption = Output.TABLE) -> None:
    """Switch a halted instance on again.

    \b
    vdc instance poweron i-7d2kq9xw --wait
    """
    _do("poweron", instance, {}, wait=wait, output=output)


@app.command()
def retry(instance: InstanceId, wait: WaitOption = False, output: OutputOption = Output.TABLE) -> None:
    """Go on with what left an instance in error.

    The operation that failed goes on where it stopped, as a new one. What is whole is used again: an image that was
    copied is not copied twice.

    \b
    vdc instance retry i-7d2kq9xw --wait
    """
    _do("retry", instance, {}, wait=wait, output=output)


@app.command()
def terminate(instance: InstanceId, wait: WaitOption = False, output: OutputOption = Output.TABLE) -> None:
    """End an instance for good.

    Its disks go to the trash, its addresses and room are given back. May be asked for at any time, also while
    something else is being done with it.

    \b
    vdc instance terminate i-7d2kq9xw --wait
    """
    _do("terminate", instance, {}, wait=wait, output=output)


@app.command("console-log")
def console_log(
    instance: InstanceId,
    last_bytes: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the end. Default: 65536.")] = None,
) -> None:
    """Print what the guest wrote to its console.

    On a terminal, control characters of the guest are shown and not obeyed; into a file goes what was written.

    \b
    vdc instance console-log i-7d2kq9xw
    vdc instance console-log i-7d2kq9xw > console.txt
    """
    with api() as client:
        log = client.get_bytes(f"instances/{instance}/console-log", last_bytes=last_bytes)
    if sys.stdout.isatty():
        sys.stdout.write(harmless(log.decode(errors="replace")))
    else:
        sys.stdout.buffer.write(log)
    sys.stdout.flush()


def _do(verb: str, instance: str, body: dict[str, Any], *, wait: bool, output: Output) -> None:
    path = f"instances/{instance}"
    with api() as client:
        conclude(client, path, client.post(f"{path}/{verb}", body), output=output, wait=wait)


def _text_of(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise WrongUse(f"The user data {file} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise WrongUse(f"The user data {file} is not UTF-8 text.") from None
