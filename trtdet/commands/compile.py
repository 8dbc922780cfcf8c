"""`trtdet compile`: TensorRT plans for a bundle."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtdet.commands.phase_bars import phase_bars
from trtdet.errors import InputError

if TYPE_CHECKING:
    from trtdet.engine.tensorrt_library import Flavour


@click.command()
@click.argument("bundle", metavar="BUNDLE")
@click.option(
    "--target",
    required=True,
    metavar="SM[,SM]",
    help="GPU generations, for instance sm_86,sm_120; `current` is the GPU of this machine.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 4096),
    help="Images per batch [ahead of time the bundle's own].",
)
@click.option(
    "--profile",
    metavar="MIN,OPT,MAX",
    help="In place of --batch: a plan for any batch from MIN to MAX, the quickest at OPT.",
)
@click.option(
    "--workspace",
    type=click.IntRange(1),
    metavar="MIB",
    help="The most GPU memory that a layer may take for its own use [all there is].",
)
@click.option(
    "--level",
    type=click.IntRange(0, 5),
    help="How long the builder looks for faster kernels [TensorRT's own].",
)
@click.option(
    "--timing-cache/--no-timing-cache",
    default=True,
    help="Keep the measured kernel times in the store: the next build takes less time [kept].",
)
@click.option(
    "--version-compatible",
    is_flag=True,
    help="Full TensorRT: a plan that later versions and the lean runtime take, too.",
)
@click.option(
    "--flavour",
    type=click.Choice(["tensorrt", "tensorrt-rtx"]),
    help="Which TensorRT compiles for `current` [the first that is installed].",
)
@click.option(
    "--device",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="With `current`: which GPU.",
)
@click.option(
    "--calibration",
    metavar="SET.JSON",
    type=click.Path(path_type=Path),
    help="With `current`, fewer bits: the set of yours that the engine was judged on.",
)
@click.option("--force", is_flag=True, help="Compile again what is there already.")
def command(
    bundle: str,
    target: str,
    batch: int | None,
    profile: str | None,
    workspace: int | None,
    level: int | None,
    timing_cache: bool,
    version_compatible: bool,
    flavour: Flavour | None,
    device: int,
    calibration: Path | None,
    force: bool,
) -> None:
    """Compile BUNDLE (a name in the store, or a folder) into plans under its plans/ folder.

    Where that folder cannot be written the plans go to the store. The path of each is written to
    standard output. A plan that is there already is not compiled again. At native resolution a plan
    takes tiles of every size up to the bundle's own.

    For the GPU of this machine the batch that is fastest is measured, where none is given, and the
    plan must give the bundle's scores, or it is refused.

    TensorRT-RTX compiles for a named generation ahead of time, without a GPU: such a plan was
    accepted by the builder, and still compiles its kernels on the GPU that loads it.

    \b
    Example:
      trtdet compile ferretnet-s --target sm_86,sm_120
      trtdet compile rine --target current --profile 1,8,32
    """
    from trtdet.build.builder import CURRENT, parse_targets
    from trtdet.build.compile import compile_bundle
    from trtdet.build.plan_settings import PlanSettings
    from trtdet.build.prepare import prepare
    from trtdet.engine.ensemble import members_of, open_any
    from trtdet.engine.store import find_bundle

    if batch and profile:
        raise InputError("--profile is in place of --batch: leave one of them out")
    settings = PlanSettings(workspace, level, version_compatible, timing_cache)
    sizes = _profile(profile) if profile else batch
    opened = open_any(find_bundle(bundle))
    members = members_of(opened)
    for name in parse_targets(target):
        here = partial(prepare, calibration=calibration)
        make = here if name == CURRENT else partial(compile_bundle, target=name)
        for member in members:
            with phase_bars() as (on_line, on_phase):
                path = make(
                    bundle=member,
                    batch=sizes,
                    settings=settings,
                    flavour=flavour,
                    device=device,
                    force=force,
                    on_progress=on_line,
                    on_phase=on_phase,
                )
            click.echo(str(path))


def _profile(text: str) -> tuple[int, int, int]:
    try:
        least, best, most = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"--profile {text} is not MIN,OPT,MAX: give three numbers, for instance 1,8,32"
        ) from None
    return least, best, most
