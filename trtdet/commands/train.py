"""`trtdet train`: labelled images become weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trtdet.errors import InputError

if TYPE_CHECKING:
    from trtdet.build.train import Epoch, Listener, TrainSettings


@click.command()
@click.argument("labels", metavar="LABELS.CSV", type=click.Path(path_type=Path))
@click.option("--model", required=True, metavar="NAME", help="A detector, see `trtdet models`.")
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where the weights go: .safetensors.",
)
@click.option("--variant", metavar="V", help="Which of the detector's networks to train.")
@click.option("--epochs", type=click.IntRange(1), help="At most so many [30].")
@click.option(
    "--patience", type=click.IntRange(1), help="Stop after so many without a better AUC [8]."
)
@click.option("--crop", type=click.IntRange(16), help="Side of the pieces learned from [128].")
@click.option("--batch", type=click.IntRange(2), help="Images per step [48].")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), help="Peak [0.001].")
@click.option("--weight-decay", type=click.FloatRange(0), help="Of AdamW [0.05].")
@click.option("--seed", type=click.IntRange(0), help="Of all that is random [0].")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to train; auto is CUDA where there is one.",
)
@click.option("--resume", is_flag=True, help="Go on with a training that was interrupted.")
def command(
    labels: Path,
    model: str,
    out: Path,
    variant: str | None,
    device: str,
    resume: bool,
    **settings: float | None,
) -> None:
    """Train a detector from scratch on LABELS.CSV, and write the best weights to FILE.

    LABELS.CSV has the columns `filename,label` (0 real, 1 synthetic). A column `split` with `train`
    and `val` divides it, else 15 % of the images are drawn for validation; files with the same
    `image` stay on one side; a column `source` keeps large collections from deciding alone.

    The weights are those of the epoch with the best validation AUC, measured as `trtdet score`
    would see the images. After each epoch the run is saved in FILE.state: --resume goes on from it.

    \b
    Example:
      trtdet train labels.csv --model npr --out mine.safetensors
      trtdet build --model npr --weights mine.safetensors --name mine
    """
    try:
        from trtdet.build.train import TrainSettings, readable, train
        from trtdet.build.weights import write_weights
    except ImportError as error:
        raise InputError(
            f"training needs more than scoring ({error}): pip install 'trtdet[build]'"
        ) from error
    from trtdet.build.detectors.registry import find_detector, find_variant
    from trtdet.calibration.labels import read_labels, split_images
    from trtdet.engine.atomic import check_writable

    spec = find_detector(model)
    chosen = find_variant(spec, variant)
    given = {name: value for name, value in settings.items() if value is not None}
    options: TrainSettings = replace(TrainSettings(), **given)  # type: ignore[arg-type]
    if options.crop % 2:
        raise InputError(f"--crop {options.crop} is odd: some networks read cells of 2x2 pixels")
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out} must end in .safetensors, the format that is written")
    state = out.with_name(out.name + ".state")
    if state.exists() and not resume:
        raise InputError(
            f"{state} holds an unfinished training: go on with it (--resume), or delete it"
        )
    if resume and not state.exists():
        raise InputError(f"there is no {state} to resume from: leave --resume out")
    check_writable(out)
    listed = read_labels(labels)
    click.echo(f"reading {len(listed)} images", err=True)
    images, refused = readable(listed)
    for line in refused:
        click.echo(f"left out: {line}", err=True)
    training, validation = split_images(images, seed=options.seed)
    click.echo(
        f"{spec.name}: {len(training)} images to learn from, {len(validation)} to validate",
        err=True,
    )
    try:
        with _progress(options.epochs) as listener:
            trained = train(
                spec,
                chosen,
                training,
                validation,
                options,
                listener=listener,
                state=state,
                device=_device(device),
            )
    except KeyboardInterrupt:
        if state.exists():
            click.echo("the finished epochs are saved: go on with --resume", err=True)
        raise
    write_weights(trained, spec, chosen, options, out)
    state.unlink()
    click.echo(
        f"best validation AUC {trained.val_auc:.4f}; next: "
        f"trtdet build --model {spec.name} --weights {out}",
        err=True,
    )
    click.echo(str(out))


def _device(requested: str) -> str:
    import torch

    if requested == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA device here; use --device cpu")
    if requested == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return requested


@contextmanager
def _progress(epochs: int) -> Iterator[Listener]:
    """A bar over the steps of the epoch on a terminal, and a line for each epoch anywhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TextColumn("best AUC {task.fields[auc]}"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("train", total=None, epoch=1, loss=0.0, auc="-")

        class _Shown:
            def on_step(self, done: int, total: int, loss: float) -> None:
                bar.update(task, completed=done, total=total, loss=loss)

            def on_epoch(self, epoch: Epoch) -> None:
                if epoch.best:
                    bar.update(task, auc=f"{epoch.val_auc:.4f}")
                bar.update(task, epoch=epoch.number + 1)
                mark = "  best so far" if epoch.best else ""
                bar.console.print(
                    f"epoch {epoch.number}/{epochs}  loss {epoch.loss:.4f}  "
                    f"validation AUC {epoch.val_auc:.4f}{mark}"
                )

        yield _Shown()
