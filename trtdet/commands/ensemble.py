"""`trtdet ensemble`: several bundles that decide together."""

from __future__ import annotations

from pathlib import Path

import click

from trtdet.commands.destination import announce, destination_options
from trtdet.errors import InputError


@click.command()
@click.argument("bundles", metavar="BUNDLE BUNDLE...", nargs=-1, required=True)
@click.option("--name", required=True, metavar="N", help="The ensemble's name.")
@click.option(
    "--combine",
    type=click.Choice(["mean-logit", "mean-probability"]),
    default="mean-logit",
    show_default=True,
    help="What is averaged over the members.",
)
@click.option("--weights", metavar="W,W,...", help="How much each member counts [all alike].")
@click.option(
    "--threshold",
    type=float,
    default=0.5,
    show_default=True,
    metavar="P",
    help="The probability above which an image is called synthetic: there the logit is 0.",
)
@destination_options
def command(
    bundles: tuple[str, ...],
    name: str,
    combine: str,
    weights: str | None,
    threshold: float,
    out: Path | None,
    no_default: bool,
) -> None:
    """Join BUNDLEs, names in the store or folders, into one that scores as they do together.

    An image is decoded once and brought to each member's own input. The ensemble's path is all that
    goes to standard output. VIP Cup 2022's Megatron averaged probabilities and called an image
    synthetic above 0.487.

    \b
    Example:
      trtdet ensemble corvi-latent corvi-progan --name corvi
      trtdet ensemble gcvit effnet resnest --combine mean-probability --threshold 0.487 --name cup
    """
    from trtdet.engine.decision import Vote
    from trtdet.engine.ensemble import make_ensemble
    from trtdet.engine.store import bundle_folder, find_bundle

    stored = bundle_folder(name)
    try:
        vote = Vote(combine, _weights(weights, len(bundles)), threshold)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(str(error)) from error
    folders = [find_bundle(bundle) for bundle in bundles]
    ensemble = make_ensemble(name, folders, vote, out or stored)
    announce(ensemble.path, no_default=no_default)


def _weights(text: str | None, count: int) -> tuple[float, ...]:
    if text is None:
        return (1.0,) * count
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--weights {text} is no list of numbers: write 2,1,1") from None
    if len(weights) != count:
        raise ValueError(f"--weights {text} has {len(weights)} numbers for {count} bundles")
    return weights
