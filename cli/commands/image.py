"""`vdc image`: what instances start from."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands.options import ImageId, LimitOption, Output, OutputOption, WaitOption
from cli.commands.session import DEFAULT_LIMIT, api, conclude, show_list, show_one
from cli.errors import Away, CliError, LeftRunning, WrongUse
from cli.render.columns import IMAGES
from cli.render.console import console_on, notice
from cli.render.sheets import image_sheet
from cli.render.upload import upload_view_on
from cli.upload import chunks, format_of_file, format_of_url, open_image

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(help="Images: what instances start from.", no_args_is_help=True)


class Hypervisor(StrEnum):
    KVM = "kvm"
    LXC = "lxc"
    FAKE = "fake"


class Format(StrEnum):
    RAW = "raw"
    GZ = "gz"


@app.command("list")
def list_(limit: LimitOption = DEFAULT_LIMIT, output: OutputOption = Output.TABLE) -> None:
    """List the images, newest first."""
    show_list("images", IMAGES, output=output, limit=limit)


@app.command()
def show(image: ImageId, output: OutputOption = Output.TABLE) -> None:
    """Show one image."""
    show_one(f"images/{image}", image_sheet, output=output)


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|URL",
            help="A file here, an http(s) URL that a node fetches, or a stored backup object (bo-…).",
        ),
    ],
    name: Annotated[str, typer.Option(help="For people.")],
    hypervisor: Annotated[Hypervisor, typer.Option(help="What runs it.")],
    format_: Annotated[
        Format | None, typer.Option("--format", help="Default: seen from the file, or from the name in the URL.")
    ] = None,
    arch: Annotated[str, typer.Option(help="Architecture of the guest.")] = "x86_64",
    init: Annotated[str, typer.Option(help="Its init: busybox or systemd, if it matters.")] = "",
    root_device: Annotated[str, typer.Option(help="Where / is, like partition:1. Default: the whole disk.")] = "",
    sha256: Annotated[str | None, typer.Option(help="Refuse anything else.", metavar="HEX")] = None,
    public: Annotated[bool, typer.Option("--public", help="Every account may start it.")] = False,
    wait: WaitOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Import a disk image, raw or gzip.

    A FILE is streamed up and the image is there at once. A URL is fetched by the data center, as an operation.

    \b
    vdc image import demo.img.gz --name demo --hypervisor lxc --init busybox --root-device partition:1
    vdc image import https://example.org/disk.raw.gz --name web --hypervisor kvm --wait
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise typer.BadParameter("a SHA-256 is 64 hexadecimal digits.", param_hint="'--sha256'")
    about = {
        "name": name,
        "hypervisor": hypervisor.value,
        "arch": arch,
        "os_type": "linux",
        "init": init,
        "root_device": root_device,
        "is_public": public,
    }
    known_format = format_.value if format_ else None
    digest = {"sha256": sha256.lower()} if sha256 else {}
    with api() as client:
        if source.startswith(("http://", "https://")):
            about |= {"url": source, "format": known_format or format_of_url(source), **digest}
            image = client.post("images", about)
        elif "://" in source:
            raise WrongUse(f"{source} is neither a file nor an http or https URL.")
        elif re.fullmatch(r"bo-[A-Za-z0-9._-]+", source) and not Path(source).exists():
            image = client.post("images", about | {"backup_object": source})
        else:
            stored = _upload(client, Path(source), known_format, {"name": name, **digest})
            image = _image_of(client, stored, about)
        conclude(client, f"images/{image['id']}", image, output=output, wait=wait)


def _upload(client: Client, path: Path, known_format: str | None, about: dict[str, Any]) -> str:
    """Store the file as a backup object and return its id."""
    file, size_bytes = open_image(path)
    with file:
        image_format = known_format or format_of_file(file, path)
        stored = client.post("backup-objects", {**about, "format": image_format, "size_bytes": size_bytes})
        try:
            with upload_view_on(console_on(sys.stderr), path.name, size_bytes) as view:
                content = chunks(file, path, size_bytes, view.advance)
                client.put_stream(f"backup-objects/{stored['id']}/content", content, size_bytes=size_bytes)
        except KeyboardInterrupt:
            raise LeftRunning(f"Stopped in the middle of {path}; no image was made of it.") from None
        except Away as error:
            # Perhaps only the answer was lost: what has arrived whole is not sent again.
            if client.get(f"backup-objects/{stored['id']}").get("state") != "available":
                raise Away(f"{error}\n{path} has not arrived whole: import it again.", reason=error.reason) from None
    return stored["id"]


def _image_of(client: Client, stored: str, about: dict[str, Any]) -> dict[str, Any]:
    try:
        return client.post("images", about | {"backup_object": stored})
    except CliError:
        # The bytes arrived whole: only the words about them were refused.
        notice(f"the file is stored as {stored}; no need to send it again: vdc image import {stored} …")
        raise
