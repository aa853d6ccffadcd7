"""The entry point: all nouns under one `vdc`, and every ending as a sentence and an exit code."""

from __future__ import annotations

import os
import sys

import typer

from cli.commands import explain, image, instance, key, network, node, operation, volume
from cli.errors import CliError

app = typer.Typer(
    help="""Instances, images and volumes of a virtual data center.

    \b
    vdc image list                             what there is to start from
    vdc instance create --image wmi-… --wait   start one and see it come up
    vdc instance list                          what runs, and where it answers
    vdc operation show op-…                    how something went, and why
    vdc explain i-…                            what is wrong with something, and what helps

    The API is found by VDC_URL and VDC_TOKEN, else by the login that `make demo` wrote.
    Exit code: 0 done, 1 failed or refused, 2 wrong use, 130 stopped with Ctrl-C.
    """,
    no_args_is_help=True,
    add_completion=False,
    # Plain help is faster than framed help and reads well in pipes.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for noun in (instance, image, volume, network, key, operation, node):
    app.add_typer(noun.app, name=noun.__name__.rpartition(".")[2])

app.command("explain")(explain.explain)


def main(arguments: list[str] | None = None) -> int:
    """Run one command (default: that of the process) and return its exit code; never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe that knows ASCII only gets `?`, not an error.
        stream.reconfigure(errors="replace")
    try:
        try:
            app(arguments, prog_name="vdc")
        except SystemExit as ending:
            # Said now, so that a full disk or a closed pipe is met here and not while Python ends.
            sys.stdout.flush()
            return ending.code if isinstance(ending.code, int) else 1
    except CliError as error:
        sys.stderr.write("vdc: " + str(error).replace("\n", "\n     ") + "\n")
        return error.exit_code
    except OSError as error:
        # What is still in the buffer could not be written then either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"vdc: the result could not be written: {error.strerror or error}.\n")
        return 1
    except Exception as error:
        # The last door: what comes here is a fault of ours, said in a line.
        if os.environ.get("VDC_TRACEBACK"):
            raise
        sys.stderr.write(
            f"vdc: this command met a fault of its own: {type(error).__name__}: {error}\n"
            "     Please report it with what VDC_TRACEBACK=1 prints.\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
