"""`trtdet compile`: TensorRT plans for a bundle."""

from __future__ import annotations

import click

from trtdet.errors import InputError


@click.command()
@click.argument("bundle", metavar="BUNDLE")
@click.option(
    "--target",
    required=True,
    metavar="SM[,SM]",
    help="GPU generations, for instance sm_86,sm_120; `current` is the GPU of this machine.",
)
@click.option("--batch", type=click.IntRange(1, 4096), help="Images per batch [the bundle's own].")
def command(bundle: str, target: str, batch: int | None) -> None:
    """Compile BUNDLE (a name in the store, or a folder) into plans under its plans/ folder.

    TensorRT-RTX compiles for a named generation ahead of time, without a GPU: such a plan was
    accepted by the builder, and still compiles its kernels on the GPU that loads it.

    \b
    Example:
      trtdet compile ferretnet-s --target sm_86,sm_120
    """
    from trtdet.build.builder import parse_targets
    from trtdet.build.compile import compile_plan, write_plan
    from trtdet.engine.ensemble import Ensemble, open_any
    from trtdet.engine.store import find_bundle

    opened = open_any(find_bundle(bundle))
    members = opened.members if isinstance(opened, Ensemble) else (opened,)
    native = [member.name for member in members if member.tiling]
    if native:
        raise InputError(
            f"{native[0]} sees native resolution: no plan takes images of any size yet"
        )
    for name in parse_targets(target):
        for member in members:
            plan = compile_plan(
                member.graph,
                target=name,
                batch=(batch or member.batch) * member.geometry.views,
                on_progress=lambda line: click.echo(line, err=True),
            )
            click.echo(str(write_plan(member.plans, plan)))
