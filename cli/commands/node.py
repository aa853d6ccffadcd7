"""`vdc node`: the machines that run guests (operators)."""

from __future__ import annotations

import typer
from rich.text import Text

from cli.commands.options import LimitOption, NodeId, Output, OutputOption, TrashEntry, WaitOption
from cli.commands.session import DEFAULT_LIMIT, api, conclude, show_items, show_list, show_one
from cli.render.columns import NODES, TRASH
from cli.render.console import print_lines
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


@app.command()
def trash(node: NodeId, output: OutputOption = Output.TABLE) -> None:
    """List the discarded disks that a node still keeps.

    The oldest come first. Until they expire, or their space is needed, each can be restored.

    \b
    vdc node trash hn-3f7h2k9s
    vdc node restore hn-3f7h2k9s vol-k2x8m4n1.op-7k2m9x4q --wait
    """
    with api() as client:
        items = client.get(f"nodes/{node}/trash")["items"]
    show_items(items, TRASH, output=output, nothing="the trash is empty")


@app.command()
def restore(node: NodeId, entry: TrashEntry, wait: WaitOption = False, output: OutputOption = Output.TABLE) -> None:
    """Bring a disk back from the trash of a node.

    It becomes a volume of the account that had it, and takes room on the node again.

    \b
    vdc node restore hn-3f7h2k9s vol-k2x8m4n1.op-7k2m9x4q --wait
    """
    with api() as client:
        volume = client.post(f"nodes/{node}/trash/{entry}/restore", {})
        conclude(client, f"volumes/{volume['id']}", volume, output=output, wait=wait)


@app.command("delete-trash")
def delete_trash(node: NodeId, entry: TrashEntry) -> None:
    """Delete a disk in the trash of a node now, for good.

    \b
    vdc node delete-trash hn-3f7h2k9s vol-k2x8m4n1.op-7k2m9x4q
    """
    with api() as client:
        client.delete(f"nodes/{node}/trash/{entry}")
    print_lines([Text(f"{entry} is deleted")])
