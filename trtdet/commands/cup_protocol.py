"""`trtdet cup-protocol`: images as the VIP Cup's were."""

from __future__ import annotations

from pathlib import Path

import click

EXIT_FAILED_ROWS = 3

_NAMED = 5  # files that could not be used, in a message


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws.")
@click.option(
    "--images", type=click.IntRange(1), metavar="N", help="Draw N of them [all, in their order]."
)
def command(source: Path, out: Path, seed: int, images: int | None) -> int:
    """Crop, resize and compress the images of IN as the VIP Cup 2022 did, into the folder OUT.

    IN is a folder of images, one in a layout that `trtdet evaluate` knows, or a CSV with a column
    `filename`. Each image becomes a random square of 5/8 to all of its shorter side (160 to 2048
    pixels), resized to 200 and saved as JPEG of quality 65 to 100. A seed gives the draws of the
    organisers' script. OUT gets metainfo.csv with what was drawn, and labels.csv where there are
    labels; an image that cannot be used stands in errors.csv, and the exit code is then 3.

    \b
    Example:
      trtdet cup-protocol photographs/ cup/ --seed 1
      trtdet cup-protocol labels.csv cup/ --seed 1 && trtdet evaluate starter cup/labels.csv
    """
    from trtdet.calibration.cup_set import DRAWS, ERRORS, LABELS, make_cup_set

    made = make_cup_set(source, out, seed=seed, count=images)
    for file, reason in list(made.failed.items())[:_NAMED]:
        click.echo(f"{file}: {reason}", err=True)
    lost = f", {len(made.failed)} could not be used ({out / ERRORS})" if made.failed else ""
    click.echo(f"{made.images} images{lost}", err=True)
    click.echo(str(out / (LABELS if made.labelled else DRAWS)))
    return EXIT_FAILED_ROWS if made.failed else 0
