"""Assembles the commands; every ResynthError becomes one line on stderr and the exit code of its class."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..errors import ResynthError
from ..export.cli import app as export_app
from . import candidates, gallery
from .attribute import attribute
from .bench import bench
from .calibrate import calibrate
from .config_file import defaults
from .doctor import doctor
from .evaluate import evaluate

app = typer.Typer(
    name="resynth",
    help="Attribute pictures to the text-to-image generator that made them, by resynthesis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "RESYNTH"},
)
app.command()(attribute)
app.command()(evaluate)
app.command()(calibrate)
app.command()(bench)
app.command()(doctor)
app.add_typer(candidates.app, name="candidates")
app.add_typer(gallery.app, name="gallery")
app.add_typer(export_app, name="export")


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="TOML file with defaults, one table per command.")] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Attribute pictures to the text-to-image generator that made them, by resynthesis.

    Settings, strongest first: command line, RESYNTH_* variables, ./resynth.toml or --config, the user's configuration,
    built-in defaults.
    """
    if version:
        print(__version__)
        raise typer.Exit
    context.default_map = {**(context.default_map or {}), **defaults(config)}


def main() -> None:
    """Entry point of `resynth`."""
    try:
        app()
    except ResynthError as error:
        print(f"resynth: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader has gone (`resynth … | head`). That is no error, and the exit must not print one.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
