"""`trtdet score`: the competition's contract."""

from __future__ import annotations

import math
import time
from typing import Any

import click

from trtdet.commands.gpu_options import backend_option, gpu_options, make_gpu_options, say
from trtdet.commands.options import Devices, Duration
from trtdet.errors import InputError


@click.command(context_settings={"allow_extra_args": True})
@click.argument("input_csv", metavar="INPUT")
@click.argument("output_csv", metavar="OUTPUT")
@click.option(
    "--engine",
    metavar="NAME_OR_PATH",
    help="A bundle [the store's default, else the starter in the package].",
)
@backend_option
@click.option(
    "--batch", type=click.IntRange(1, 4096), help="Images per batch [the bundle's, or its plan's]."
)
@click.option("--threads", type=click.IntRange(1, 256), help="Decoding threads [as many as cores].")
@click.option(
    "--failed-logit",
    type=float,
    metavar="X",
    help="Write X for a row that cannot be scored, instead of nothing.",
)
@click.option("--raw", is_flag=True, help="Write the network's logit without its decision.")
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    metavar="N",
    help="Refuse larger images [178956970, where Pillow stops].",
)
@click.option(
    "--root",
    metavar="DIR",
    help="Names are relative to DIR, and a row whose name leads out of it is not scored.",
)
@click.option(
    "--max-bytes", type=click.IntRange(min=1), metavar="N", help="Refuse larger files [1 GiB]."
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Give an image up that takes longer to read and decode [60].",
)
@click.option(
    "--isolate", is_flag=True, help="Decode in sandboxed processes: for files of strangers."
)
@click.option(
    "--resume", is_flag=True, help="Go on with a run of the same job that was interrupted."
)
@click.option(
    "--deadline",
    type=Duration(),
    metavar="TIME",
    help="Be through in TIME, say 55m: with fewer views, fewer members, then fewer rows.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option(
    "--devices",
    type=Devices(),
    metavar="0,1|all",
    help="TensorRT: score on several GPUs, with a process for each.",
)
@click.option(
    "--ray",
    metavar="auto|ADDRESS",
    help="Score on the machines of a Ray cluster. OUTPUT may then be a folder, too.",
)
@gpu_options
def command(
    input_csv: str,
    output_csv: str,
    engine: str | None,
    backend: str,
    batch: int | None,
    threads: int | None,
    failed_logit: float | None,
    raw: bool,
    max_pixels: int | None,
    max_bytes: int | None,
    max_seconds: float | None,
    isolate: bool,
    root: str | None,
    resume: bool,
    deadline: float | None,
    as_json: bool,
    devices: list[int] | str | None,
    ray: str | None,
    **gpu: Any,
) -> int:
    """Score the images that INPUT lists, and write OUTPUT.

    INPUT is a CSV or a .parquet file with a column `filename`, relative to its own folder or
    absolute; or a folder of images; or a pattern in quotes. OUTPUT, a CSV or a .parquet file, gets
    `filename,logit`, one row per input row, in the same order; a logit above 0 means synthetic.
    `-` reads a CSV from standard input, or writes one to standard output.

    A row whose image cannot be read has an empty logit, and its reason stands in
    OUTPUT.errors.csv, or in a Parquet file's column `reason`; the exit code is then 3.

    What ends a run early, Ctrl-C or a power cut, loses nothing: the rows until then are in
    OUTPUT.journal, and --resume goes on from there, to the same bytes.

    \b
    Example:
      trtdet score input.csv output.csv
      trtdet score photos/ scores.parquet
      trtdet score 'photos/**/*.jpg' scores.csv
      trtdet score --engine npr --failed-logit 0 photos.csv scores.csv
      trtdet score --ray auto s3://bucket/photos.parquet s3://bucket/scores/
    """
    if others := click.get_current_context().args:
        raise click.UsageError(
            f"{2 + len(others)} names were given, and INPUT and OUTPUT are two: put a "
            "pattern in quotes, as in: trtdet score 'photos/*.jpg' scores.csv"
        )

    from trtdet.engine.decode import Limits

    started = time.monotonic()
    if failed_logit is not None and not math.isfinite(failed_logit):
        raise InputError(f"--failed-logit {failed_logit} is no finite number")
    if output_csv == "-" and (deadline or as_json):
        option = "--deadline" if deadline else "--json"
        raise InputError(f"{option} needs an output file: standard output is taken by the rows")
    limits = Limits(
        max_pixels=max_pixels or Limits.max_pixels,
        max_bytes=max_bytes or Limits.max_bytes,
        max_seconds=max_seconds or Limits.max_seconds,
    )
    network: dict[str, Any] = {"batch": batch, "raw": raw}
    if ray is not None:
        from trtdet.commands.score_ray import score_on_cluster

        one_machine = {
            "threads": threads,
            "isolate": isolate,
            "root": root,
            "deadline": deadline,
            "devices": devices,
        }
        options = {"backend": backend, "failed_logit": failed_logit, "limits": limits, **network}
        return score_on_cluster(
            ray, input_csv, output_csv, engine, options, gpu, one_machine, resume, as_json
        )

    from trtdet.commands.score_here import Request, score_here

    return score_here(
        Request(
            input_csv,
            output_csv,
            engine,
            backend,
            how={
                **network,
                "gpu": make_gpu_options(**gpu),
                "decode_threads": threads,
                "limits": limits,
                "isolate": isolate,
                "say": say,
            },
            # Not max_seconds: what it refuses is the machine's and the day's, and nobody's job.
            decisive={
                "raw": raw,
                "failed_logit": failed_logit,
                "max_pixels": max_pixels,
                "max_bytes": max_bytes,
            },
            root=root,
            failed_logit=failed_logit,
            devices=devices,
            resume=resume,
            ends_at=started + deadline if deadline else None,
            as_json=as_json,
        )
    )
