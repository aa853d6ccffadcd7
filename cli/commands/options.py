"""Arguments and options that several commands share."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


def checked_id(value: str | None) -> str | None:
    """An id as it may stand in a path of the API; other things are wrong use."""
    if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", value):
        raise typer.BadParameter(f"{value!r} is not an id; ids look like i-7d2kq9xw.")
    return value


InstanceId = Annotated[str, typer.Argument(metavar="INSTANCE", help="Id, like i-7d2kq9xw.", callback=checked_id)]
ImageId = Annotated[str, typer.Argument(metavar="IMAGE", help="Id, like wmi-demolxc1.", callback=checked_id)]
VolumeId = Annotated[str, typer.Argument(metavar="VOLUME", help="Id, like vol-k2x8m4n1.", callback=checked_id)]
NodeId = Annotated[str, typer.Argument(metavar="NODE", help="Id, like hn-3f7h2k9s.", callback=checked_id)]
StrayName = Annotated[
    str, typer.Argument(metavar="STRAY", help="Its name, like i-7d2kq9xw or vol-k2x8m4n1.", callback=checked_id)
]
TrashEntry = Annotated[
    str, typer.Argument(metavar="ENTRY", help="Id in the trash, like vol-k2x8m4n1.op-7k2m9x4q.", callback=checked_id)
]
KeyId = Annotated[str, typer.Argument(metavar="KEY", help="Id, like ssh-5m2p8q1r.", callback=checked_id)]
OperationId = Annotated[str, typer.Argument(metavar="OPERATION", help="Id, like op-7k2m9x4q.", callback=checked_id)]

AnyId = Annotated[
    str, typer.Argument(metavar="ID", help="Of anything: i-…, vol-…, op-…, wmi-…, bo-…, hn-….", callback=checked_id)
]

OutputOption = Annotated[
    Output, typer.Option("-o", "--output", help="table for people, json: the objects of the API, with exact numbers.")
]
LimitOption = Annotated[int, typer.Option("--limit", min=0, metavar="N", help="The newest N; 0 lists all.")]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Stay until the operation has ended; exit code 0 if it is done, else 1.")
]
