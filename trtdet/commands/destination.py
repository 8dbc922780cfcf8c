"""Where a command's new bundle goes: the options, and its last lines."""

from __future__ import annotations

from pathlib import Path

import click

from trtdet.commands.options import together

# For commands that make a bundle.
destination_options = together(
    click.option(
        "--out",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="The folder to write [the store's, under the name].",
    ),
    click.option("--no-default", is_flag=True, help="Leave the store's default engine as it is."),
)


def announce(bundle: Path, *, no_default: bool) -> None:
    """Print the new bundle's path, and make it the one that `trtdet score` takes."""
    from trtdet.engine.store import set_default

    click.echo(str(bundle))
    if not no_default:
        set_default(bundle)
