"""`vdc network`: where instances get their addresses."""

from __future__ import annotations

import typer

from cli.commands.options import LimitOption, Output, OutputOption
from cli.commands.session import DEFAULT_LIMIT, show_list
from cli.render.columns import NETWORKS

app = typer.Typer(help="Networks: where instances get their addresses.", no_args_is_help=True)


@app.callback()
def network() -> None:
    pass


@app.command("list")
def list_(limit: LimitOption = DEFAULT_LIMIT, output: OutputOption = Output.TABLE) -> None:
    """List the networks with their leases."""
    show_list("networks", NETWORKS, output=output, limit=limit)
