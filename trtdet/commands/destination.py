"""Where a command's new bundle goes: the options, and its last lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., None])


def destination_options(command: _Command) -> _Command:
    """`--out` and `--no-default`, for commands that make a bundle."""
    out = click.option(
        "--out",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="The folder to write [the store's, under the name].",
    )
    no_default = click.option(
        "--no-default", is_flag=True, help="Leave the store's default engine as it is."
    )
    return out(no_default(command))


def announce(bundle: Path, *, no_default: bool) -> None:
    """Print the new bundle's path, and make it the one that `trtdet score` takes."""
    from trtdet.engine.store import set_default

    click.echo(str(bundle))
    if not no_default:
        set_default(bundle)
