"""`trtdet bench`: how fast an engine is, and what holds it back."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from trtdet.commands.gpu_options import backend_option, bench_gpu_options, make_gpu_options, say
from trtdet.errors import InputError

_DRAWN = 64  # images, of 200 to 640 pixels to a side


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Whole numbers above 0, with commas between them; () where there are none."""
    if value is None:
        return ()
    try:
        numbers = tuple(int(each) for each in value.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(
            f"{value!r} is no list of whole numbers, say 1,4,16", ctx=ctx, param=param
        )
    return numbers


@click.command()
@click.argument("bundle", metavar="[BUNDLE]", required=False)
@backend_option
@click.option(
    "--images",
    metavar="FOLDER_OR_CSV",
    type=click.Path(exists=True, path_type=Path),
    help="Images to score, at most 512 of them [drawn ones].",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=1.0),
    default=60.0,
    show_default=True,
    help="How long to measure, compilation included.",
)
@click.option("--batches", callback=_numbers, metavar="N,N", help="Batches [1 to 32].")
@click.option(
    "--streams",
    callback=_numbers,
    metavar="N,N",
    help="Batches of the network that run at once [1, and as many as cores].",
)
@click.option(
    "--threads",
    callback=_numbers,
    metavar="N,N",
    help="Decoding threads [1, as many as cores, twice as many].",
)
@click.option("--json", "json_file", metavar="FILE", help="Write the numbers; - prints them.")
@click.option("--markdown", metavar="FILE", help="Write the tables [- without --json].")
@click.option("--html", metavar="FILE", help="Write one page with plots.")
@bench_gpu_options
def command(
    bundle: str | None,
    backend: str,
    images: Path | None,
    seconds: float,
    batches: tuple[int, ...],
    streams: tuple[int, ...],
    threads: tuple[int, ...],
    json_file: str | None,
    markdown: str | None,
    html: str | None,
    **gpu: Any,
) -> None:
    """Measure BUNDLE (a name in the store, a folder, or the default engine) on this machine.

    Decoding, geometry, copying, the network and writing one by one; the network's latency and
    throughput over batches and streams; the whole pipeline over decoding threads; which stage is
    the bottleneck; how much of the machine's peak the network reaches; clocks, power and
    temperature where the machine tells them.

    \b
    Example:
      trtdet bench rine-int8
      trtdet bench --seconds 120 --images photographs/ --html bench.html --json bench.json npr
    """
    import json

    from trtdet.benchmarks.bench import Request, run_bench
    from trtdet.benchmarks.bench_page import bench_page
    from trtdet.benchmarks.bench_text import as_markdown
    from trtdet.benchmarks.pictures import given_pictures, photographs
    from trtdet.engine.atomic import check_writable
    from trtdet.engine.backends import choose_backend
    from trtdet.engine.ensemble import Ensemble, open_any
    from trtdet.engine.store import STARTER, find_bundle, stored_bundles

    for each in (json_file, markdown, html):
        if each not in (None, "-"):
            try:
                check_writable(Path(each))
            except OSError as error:
                raise InputError(f"cannot write {each}: {error.strerror or error}") from error
    for each in {json_file, markdown, html} & {STARTER, *stored_bundles()}:
        raise InputError(
            f"{each} is an engine, where the name of a file is wanted: say {each}.json, or "
            f"trtdet bench {each}"
        )
    opened = open_any(find_bundle(bundle))
    if isinstance(opened, Ensemble):
        names = ", ".join(str(member.path) for member in opened.members)
        raise InputError(f"{opened.name} is an ensemble: measure its members ({names})")
    chosen, _rejected = choose_backend(backend)
    with tempfile.TemporaryDirectory(prefix="trtdet-") as folder:
        paths = given_pictures(images, 512) if images else photographs(Path(folder), _DRAWN)
        request = Request(
            opened,
            chosen,
            paths,
            images is None,
            seconds,
            batches,
            streams,
            threads,
            make_gpu_options(**gpu),
        )
        record = run_bench(request, say)
    if json_file is None and markdown is None:
        markdown = "-"
    _write(json_file, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    _write(markdown, as_markdown(record))
    _write(html, bench_page(record) if html else "")


def _write(target: str | None, text: str) -> None:
    from trtdet.engine.atomic import atomic_text

    if target == "-":
        click.echo(text, nl=False)
    elif target is not None:
        with atomic_text(Path(target)) as file:
            file.write(text)
