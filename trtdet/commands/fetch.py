"""`trtdet fetch`: released weights, into the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trtdet.commands.released import fetched
from trtdet.errors import InputError

if TYPE_CHECKING:
    from trtdet.build.release import Release


@click.command()
@click.argument("name")
@click.option("--variant", metavar="V", help="Which of the detector's checkpoints [the first].")
@click.option("--all", "every", is_flag=True, help="Every checkpoint of the detector.")
def command(name: str, variant: str | None, every: bool) -> None:
    """Fetch the released weights of NAME into the store, and verify them.

    NAME is a detector, see `trtdet models`, or a CLIP tower: clip-vit-l14, clip-vit-b32; a
    detector on such a tower brings it. Nothing but the files' paths goes to standard output. An
    interrupted download goes on where it
    stopped; a file that is there is verified and not fetched again.

    On a machine without network, put the file into the folder that the message names. With
    TRTDET_MIRROR=URL in the environment, URL/FILE is fetched in place of the authors' address.

    \b
    Example:
      trtdet fetch ferretnet-s
      trtdet fetch tiny-ladeda --all
    """
    if variant is not None and every:
        raise InputError("--variant and --all contradict each other: give one of them")
    for release in _releases(name, variant, every):
        click.echo(str(fetched(release)))


def _releases(name: str, variant: str | None, every: bool) -> list[Release]:
    from trtdet.build.weights_store import CLIP_TOWERS, releases_of

    if name in CLIP_TOWERS:
        if variant is not None:
            raise InputError(f"{name} is one file: leave --variant out")
        return [CLIP_TOWERS[name]]
    try:
        from trtdet.build.detectors.registry import find_detector
    except ImportError as error:
        raise InputError(
            f"the detectors are torch modules ({error}): pip install 'trtdet[build]'"
        ) from error
    try:
        spec = find_detector(name)
    except InputError as error:
        raise InputError(f"{error}; CLIP towers: {', '.join(CLIP_TOWERS)}") from error
    heads = releases_of(spec, variant, every=every)
    return [*heads, CLIP_TOWERS[spec.backbone]] if spec.backbone else heads
