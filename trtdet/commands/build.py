"""`trtdet build`: a checkpoint becomes a bundle."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from trtdet.commands.destination import announce, destination_options
from trtdet.commands.precision import precision_options, precision_request
from trtdet.commands.released import fetched
from trtdet.errors import InputError

if TYPE_CHECKING:
    from trtdet.engine.decision import Decision


@click.command()
@click.option(
    "--model",
    metavar="NAME[,NAME]",
    help="A detector, see `trtdet models`; several that read one CLIP tower give one bundle.",
)
@click.option(
    "--weights",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="The checkpoint: .pth, .pt or .safetensors; once per detector [the released, fetched].",
)
@click.option(
    "--variant",
    metavar="V[,V]",
    help="Which of the checkpoints FILE is like, or which to fetch [the first].",
)
@click.option(
    "--backbone",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="CLIP, for rine and univfd: OpenAI's, open_clip's or Hugging Face's file [fetched].",
)
@click.option(
    "--geometry",
    metavar="G",
    help="How an image is brought to the network, see `trtdet models` [the paper's].",
)
@click.option(
    "--views",
    type=click.Choice(["centre", "ten-crop"]),
    default="centre",
    show_default=True,
    help="Ten crops in place of the centre crop, their logits averaged.",
)
@click.option(
    "--platt",
    nargs=2,
    type=float,
    metavar="A B",
    help="Calibration: the written logit is A * logit + B [1 0].",
)
@click.option(
    "--tile",
    type=click.IntRange(64, 16384),
    help="At native resolution, the longest side in pixels that is computed at once [640 or 1024].",
)
@click.option(
    "--onnx",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="In place of --model and --weights: any other detector, as an ONNX graph.",
)
@click.option(
    "--spec",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="With --onnx: the TOML file that says how images reach the graph, and what it gives.",
)
@click.option("--name", metavar="N", help="The bundle's name [the model's, with its variant].")
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
@destination_options
@precision_options
def command(
    model: str | None,
    weights: tuple[Path, ...],
    variant: str | None,
    backbone: Path | None,
    geometry: str | None,
    views: str,
    platt: tuple[float, float] | None,
    tile: int | None,
    onnx: Path | None,
    spec: Path | None,
    name: str | None,
    out: Path | None,
    batch: int,
    target: str | None,
    no_default: bool,
    **precision: Any,
) -> None:
    """Turn a released checkpoint into a bundle, compared with the paper's network in torch.

    Without --weights the released checkpoint is fetched, as `trtdet fetch` does. With --onnx and
    --spec any other detector's graph becomes a bundle, compared with the graph as it was.

    --fp16 and --int8 make an engine of fewer bits, run it on images that nothing was calibrated on,
    and refuse it where its logits are not near enough: `trtdet inspect --precision` shows it all.

    The bundle's path is all that goes to standard output. The bundle becomes the one that
    `trtdet score` takes when no --engine is given.

    \b
    Example:
      trtdet build --model ferretnet-s
      trtdet build --model npr --weights NPR.pth --target sm_86,sm_120
      trtdet build --model rine --weights model_4class_trainable.pth --backbone ViT-L-14.pt
      trtdet build --model rine --int8 --calibration photographs/
      trtdet build --onnx detector.onnx --spec detector.toml
    """
    _check_sources(model, onnx, spec)
    with _stdout_for_the_path_alone():
        try:
            from trtdet.build.assemble import BuildRequest, build_bundle
            from trtdet.build.foreign_bundle import ForeignRequest, build_foreign
        except ImportError as error:
            raise InputError(
                f"building needs more than scoring ({error}): pip install 'trtdet[build]'"
            ) from error
        from trtdet.build.builder import CURRENT, parse_targets
        from trtdet.build.prepare import prepare

        def talk(line: str) -> None:
            click.echo(line, err=True)

        wanted = parse_targets(target) if target else ()
        targets = tuple(each for each in wanted if each != CURRENT)
        bits = precision_request(**precision)
        if onnx is not None and spec is not None:
            foreign = ForeignRequest(onnx, spec, _decision(platt), name, out, batch, targets, bits)
            bundle = build_foreign(foreign, talk)
        else:
            assert model is not None  # `_check_sources` saw to it
            request = BuildRequest(
                model=model,
                variant=variant,
                geometry=geometry,
                ten_crop=views == "ten-crop",
                platt=_decision(platt),
                tile=tile,
                name=name,
                out=out,
                batch=batch,
                targets=targets,
                precision=bits,
                weights=weights,
                backbone=backbone,
                fetch=fetched,
            )
            bundle = build_bundle(request, talk)
        if CURRENT in wanted:  # what is there by now can be judged on it
            prepare(bundle, None, talk, calibration=bits.calibration)
    announce(bundle.path, no_default=no_default)


def _check_sources(model: str | None, onnx: Path | None, spec: Path | None) -> None:
    """Raise InputError unless the options name one thing to build, and what it needs."""
    if onnx is None and spec is None:
        if model is None:
            raise InputError(
                "nothing to build: give --model for a detector of `trtdet models`, or --onnx and "
                "--spec for any other"
            )
        return
    context = click.get_current_context()
    for name in ("model", "weights", "variant", "backbone", "geometry", "views", "tile"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise InputError(
                f"--{name} is for a detector of the registry: leave it out with --onnx"
            )
    if spec is None:
        raise InputError(f"--onnx {onnx} needs --spec FILE: README.md has one to start from")
    if onnx is None:
        raise InputError(f"--spec {spec} describes a graph: give that with --onnx FILE")


def _decision(platt: tuple[float, float] | None) -> Decision:
    from trtdet.engine.decision import Decision

    try:
        return Decision(*platt) if platt else Decision()
    except ValueError as error:
        raise InputError(f"--platt: {error}") from error


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
