"""`trtdet build`: a checkpoint becomes a bundle."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from trtdet.errors import InputError


@click.command()
@click.option("--model", required=True, metavar="NAME", help="A detector, see `trtdet models`.")
@click.option(
    "--weights",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The checkpoint: .pth, .pt or .safetensors.",
)
@click.option("--variant", metavar="V", help="Which of the detector's checkpoints FILE is like.")
@click.option("--name", metavar="N", help="The bundle's name [the model's, with its variant].")
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The bundle's folder [the store's, under the name].",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 4096),
    default=1,
    show_default=True,
    help="Images per batch; `trtdet score --batch` can choose another on a CPU.",
)
@click.option(
    "--target",
    metavar="SM[,SM]",
    help="Also compile TensorRT-RTX plans ahead of time, for instance sm_86,sm_120.",
)
@click.option("--no-default", is_flag=True, help="Leave the store's default engine as it is.")
def command(
    model: str,
    weights: Path,
    variant: str | None,
    name: str | None,
    out: Path | None,
    batch: int,
    target: str | None,
    no_default: bool,
) -> None:
    """Turn a released checkpoint into a bundle, compared with the paper's network in torch.

    The bundle's path is all that goes to standard output. The bundle becomes the one that
    `trtdet score` takes when no --engine is given.

    \b
    Example:
      trtdet build --model ferretnet-s --weights ferretnet-s-median-3.pth
      trtdet build --model npr --weights NPR.pth --target sm_86,sm_120
    """
    from trtdet.engine.store import STARTER, set_default

    if name == STARTER:
        raise InputError(f"--name {STARTER} is the package's own bundle: choose another name")

    with _stdout_for_the_path_alone():
        try:
            from trtdet.build.assemble import BuildRequest, build_bundle
        except ImportError as error:
            raise InputError(
                f"building needs more than scoring ({error}): pip install 'trtdet[build]'"
            ) from error
        from trtdet.build.builder import parse_targets

        request = BuildRequest(
            model=model,
            weights=weights,
            variant=variant,
            name=name,
            out=out,
            batch=batch,
            targets=parse_targets(target) if target else (),
        )
        bundle = build_bundle(request, on_stage=lambda line: click.echo(line, err=True))
    click.echo(str(bundle.path))
    if not no_default:
        set_default(bundle.path)


@contextmanager
def _stdout_for_the_path_alone() -> Iterator[None]:
    """Send what exporters print to standard output, native code too, to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
