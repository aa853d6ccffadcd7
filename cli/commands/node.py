"""`vdc node`: the machines that run guests (operators)."""

from __future__ import annotations

import typer

from cli.commands.options import LimitOption, NodeId, Output, OutputOption
from cli.commands.session import DEFAULT_LIMIT, show_list, show_one
from cli.render.columns import NODES
from cli.render.sheets import node_sheet

app = typer.Typer(help="Nodes: the machines that run guests (operators).", no_args_is_help=True)


@app.command("list")
def list_(limit: LimitOption = DEFAULT_LIMIT, output: OutputOption = Output.TABLE) -> None:
    """List the nodes with their use and heartbeat."""
    show_list("nodes", NODES, output=output, limit=limit)


@app.command()
def show(node: NodeId, output: OutputOption = Output.TABLE) -> None:
    """Show one node with its warnings."""
    show_one(f"nodes/{node}", node_sheet, output=output)
