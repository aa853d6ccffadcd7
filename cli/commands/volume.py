"""`vdc volume`: the disks of instances."""

from __future__ import annotations

import typer

from cli.commands.options import LimitOption, Output, OutputOption, VolumeId
from cli.commands.session import DEFAULT_LIMIT, show_list, show_one
from cli.render.columns import VOLUMES
from cli.render.sheets import volume_sheet

app = typer.Typer(help="Volumes: the disks of instances.", no_args_is_help=True)


@app.command("list")
def list_(limit: LimitOption = DEFAULT_LIMIT, output: OutputOption = Output.TABLE) -> None:
    """List the volumes, newest first."""
    show_list("volumes", VOLUMES, output=output, limit=limit)


@app.command()
def show(volume: VolumeId, output: OutputOption = Output.TABLE) -> None:
    """Show one volume."""
    show_one(f"volumes/{volume}", volume_sheet, output=output)
