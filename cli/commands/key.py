"""`vdc key`: ssh keys that may log in to instances."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from cli.commands.options import KeyId, LimitOption, Output, OutputOption
from cli.commands.session import DEFAULT_LIMIT, api, show_list
from cli.errors import CliError, WrongUse
from cli.render.columns import KEYS
from cli.render.console import notice, print_json
from cli.render.words import word

app = typer.Typer(help="SSH keys that may log in to instances.", no_args_is_help=True)

NameOption = Annotated[str, typer.Option(help="For people.")]


@app.command()
def create(
    name: NameOption,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the private key here, for your eyes only.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Make a new pair of keys. The private key is told this once and kept nowhere.

    \b
    vdc key create --name laptop --save ~/.ssh/vdc
    """
    # Opened first: a key that cannot be saved must not be made.
    file = _new_private_file(save) if save else None
    try:
        with api() as client:
            pair = client.post("ssh-key-pairs", {"name": name})
    except BaseException:
        if file is not None:
            file.close()
            Path(file.name).unlink()
        raise
    if file is not None:
        _save(pair, file)
        notice(f"the private key is in {save}")
    if output is Output.JSON:
        print_json(pair)
        return
    about = f"{word(pair.get('id'))} {word(pair.get('fingerprint'))}"
    if file is None:
        notice(f"{about}; the private key follows, this once")
        sys.stdout.write(pair["private_key"].rstrip("\n") + "\n")
    else:
        sys.stdout.write(about + "\n")


@app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The public key, like ~/.ssh/id_ed25519.pub; - is stdin.")
    ],
    name: NameOption,
    output: OutputOption = Output.TABLE,
) -> None:
    """Import a public key.

    \b
    vdc key import ~/.ssh/id_ed25519.pub --name laptop
    """
    public_key = _public_key_of(file)
    with api() as client:
        pair = client.post("ssh-key-pairs", {"name": name, "public_key": public_key})
    if output is Output.JSON:
        print_json(pair)
    else:
        sys.stdout.write(f"{word(pair.get('id'))} {word(pair.get('fingerprint'))}\n")


@app.command("list")
def list_(limit: LimitOption = DEFAULT_LIMIT, output: OutputOption = Output.TABLE) -> None:
    """List the keys, newest first."""
    show_list("ssh-key-pairs", KEYS, output=output, limit=limit)


@app.command()
def delete(key: KeyId) -> None:
    """Delete a key; instances that know it already keep it."""
    with api() as client:
        client.delete(f"ssh-key-pairs/{key}")
    sys.stdout.write(f"{key} is deleted\n")


def _save(pair: dict[str, Any], file: TextIO) -> None:
    try:
        with file:
            file.write(pair.pop("private_key"))
    except OSError as error:
        raise CliError(
            f"The private key could not be written to {file.name}: {error.strerror or error}.\n"
            f"It is lost; delete its public half (vdc key delete {pair['id']}) and make another."
        ) from None


def _new_private_file(path: Path) -> TextIO:
    try:
        return open(path, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600))
    except OSError as error:
        raise WrongUse(f"The private key cannot be saved as {path}: {error.strerror or error}.") from None


def _public_key_of(file: Path) -> str:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise WrongUse(f"The public key {file} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise WrongUse(f"{file} is not a text file, so not a public key.") from None
    if "PRIVATE KEY" in text:
        raise WrongUse(f"{file} is a private key, which stays with you. Import its public half, {file}.pub.")
    return text.strip()
