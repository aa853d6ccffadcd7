"""`vdc node`: the machines that run guests (operators)."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from cli.commands.options import (
    LimitOption,
    NodeId,
    Output,
    OutputOption,
    StrayName,
    TrashEntry,
    WaitOption,
    checked_id,
)
from cli.commands.session import DEFAULT_LIMIT, api, conclude, show_items, show_list, show_one
from cli.render.columns import NODES, STRAYS, TRASH
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
def strays(
    node: Annotated[
        str | None, typer.Argument(metavar="[NODE]", help="Only this node.", callback=checked_id, show_default=False)
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List what nodes have of ours that no row knows.

    Guests that are no instances of their node, and disks that are no volumes of it. They are left alone until an
    operator adopts them or puts them into quarantine.

    \b
    vdc node strays
    vdc node strays hn-3f7h2k9s
    """
    with api() as client:
        nodes = [node] if node else [one["id"] for one in client.items("nodes", limit=0)[0]]
        items = [stray for one in nodes for stray in client.get(f"nodes/{one}/strays")["items"]]
    show_items(items, STRAYS, output=output, nothing="no strays are seen")


@app.command()
def adopt(
    node: NodeId,
    stray: StrayName,
    account: Annotated[
        str, typer.Option(metavar="ACCOUNT", help="Whose it shall be, like a-1b2c3d4e.", callback=checked_id)
    ],
    image: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="What a guest was made from, if nothing tells.", callback=checked_id),
    ] = None,
    wait: WaitOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a stray an instance, or a volume, of an account.

    It is taken as it is, under the id that it has: a guest that runs goes on running. It takes room on its node.

    \b
    vdc node adopt hn-3f7h2k9s i-7d2kq9xw --account a-1b2c3d4e --wait
    """
    body = {"account": account} | ({"image": image} if image else {})
    with api() as client:
        begun = client.post(f"nodes/{node}/strays/{stray}/adopt", body)
        becomes = "instances" if begun["kind"] == "guest" else "volumes"
        conclude(client, f"{becomes}/{stray}", {**begun, "id": begun["name"]}, output=output, wait=wait)


@app.command()
def quarantine(node: NodeId, stray: StrayName, wait: WaitOption = False, output: OutputOption = Output.TABLE) -> None:
    """Remove a stray from its node.

    A guest is ended by force. Its disks, unless a volume owns them, move to the trash of the node.

    \b
    vdc node quarantine hn-3f7h2k9s i-7d2kq9xw --wait
    vdc node trash hn-3f7h2k9s
    """
    path = f"nodes/{node}/strays/{stray}"
    with api() as client:
        begun = client.post(f"{path}/quarantine", {})
        conclude(client, path, {**begun, "id": begun["name"]}, output=output, wait=wait)


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
