"""`trtdet compile`: TensorRT plans for a bundle."""

from __future__ import annotations

import click


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
    from trtdet.engine.bundle import open_bundle
    from trtdet.engine.store import find_bundle

    opened = open_bundle(find_bundle(bundle))
    for name in parse_targets(target):
        plan = compile_plan(
            opened.graph,
            target=name,
            batch=batch or opened.batch,
            on_progress=lambda line: click.echo(line, err=True),
        )
        click.echo(str(write_plan(opened.plans, plan)))
