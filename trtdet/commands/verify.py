"""`trtdet verify`: whether an engine holds, here, what was promised of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from trtdet.commands.gpu_options import backend_option, gpu_options, make_gpu_options, say
from trtdet.errors import VerificationError


@click.command()
@click.argument("bundle", metavar="[BUNDLE]", required=False)
@backend_option
@click.option(
    "--images",
    metavar="FOLDER_OR_CSV",
    type=click.Path(exists=True, path_type=Path),
    help="Images to score [drawn ones, in several formats].",
)
@click.option(
    "--count",
    type=click.IntRange(min=2),
    default=24,
    show_default=True,
    help="How many images; of yours so many, evenly spread.",
)
@click.option(
    "--calibration",
    metavar="SET",
    type=click.Path(exists=True, path_type=Path),
    help="Fewer bits: the calibration set that the bundle was built with, to score its gate again.",
)
@click.option(
    "--floor",
    type=click.FloatRange(-1.0, 1.0),
    default=0.95,
    show_default=True,
    help="Fewer bits: the lowest rank correlation with the float32 network that passes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the certificate as JSON.")
@gpu_options
def command(
    bundle: str | None,
    backend: str,
    images: Path | None,
    count: int,
    calibration: Path | None,
    floor: float,
    as_json: bool,
    **gpu: Any,
) -> None:
    """Verify BUNDLE (a name in the store, a folder, or the default engine) on this machine.

    The probes that travel in it are scored again, and in fewer bits the images that it was judged
    on. A set of images is scored as it is listed, shuffled, in batches of other sizes and with
    other numbers of threads and streams: every score must be the same bits. OpenCV's pixels are
    compared with Pillow's. The certificate is printed; the exit code is 6 where a check failed.

    \b
    Example:
      trtdet verify rine-int8
      trtdet verify --json --images photographs/ npr > certificate.json
    """
    import json

    from trtdet.benchmarks.pictures import given_pictures, mixed_pictures
    from trtdet.benchmarks.verify import Request, verify
    from trtdet.engine.backends import choose_backend
    from trtdet.engine.ensemble import open_any
    from trtdet.engine.store import find_bundle

    opened = open_any(find_bundle(bundle))
    chosen, _rejected = choose_backend(backend)
    with tempfile.TemporaryDirectory(prefix="trtdet-") as folder:
        paths = given_pictures(images, count) if images else mixed_pictures(Path(folder), count)
        options = make_gpu_options(**gpu)
        certificate = verify(Request(opened, chosen, paths, calibration, floor, options), say)
    click.echo(
        json.dumps(certificate.to_json(), indent=1, ensure_ascii=False)
        if as_json
        else str(certificate)
    )
    if certificate.failed:
        raise VerificationError(
            f"{opened.name} is not what it was built to be here ({', '.join(certificate.failed)}): "
            "build it again on this machine; if that does not help, report the certificate"
        )
