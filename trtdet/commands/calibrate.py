"""`trtdet calibrate`: images to measure precision with, and where the decision lies."""

from __future__ import annotations

from pathlib import Path

import click

from trtdet.commands.gpu_options import compile_for_this_gpu, say
from trtdet.errors import InputError

_NAMED = 5  # files that were passed over, in a message


@click.group()
def command() -> None:
    """Make a calibration set, or move a bundle's decision.

    \b
    Example:
      trtdet calibrate set photographs/ --out set.json
      trtdet calibrate decision npr labels.csv --method platt
    """


@command.command("set")
@click.argument("source", metavar="LABELS_OR_FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--size", type=click.IntRange(1), default=512, show_default=True, help="Images to calibrate on."
)
@click.option(
    "--gate", type=click.IntRange(0), default=256, show_default=True, help="Others to judge by."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draw.")
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default=Path("set.json"),
    show_default=True,
    help="The manifest.",
)
def make_set(source: Path, size: int, gate: int, seed: int, out: Path) -> None:
    """Choose images from a folder, or from a CSV with the columns `filename` and perhaps `label`.

    Every class, format and size has its turn; no picture is taken twice. The manifest holds the
    files' hashes: a build with it refuses files that changed since.

    \b
    Example:
      trtdet calibrate set labels.csv --size 512 --out set.json
      trtdet build --model rine --int8 --calibration set.json
    """
    from trtdet.calibration.draw import draw_set
    from trtdet.calibration.images import write_set
    from trtdet.engine.atomic import check_writable

    if out.suffix != ".json":
        raise InputError(f"--out {out} must end in .json, which tells a set from a list")
    check_writable(out)
    skipped: list[str] = []
    chosen = draw_set(
        source,
        size=size,
        gate_size=gate,
        seed=seed,
        on_skip=lambda path, reason: skipped.append(f"{path}: {reason}"),
    )
    write_set(chosen, out)
    for line in skipped[:_NAMED]:
        click.echo(f"passed over {line}", err=True)
    if len(skipped) > _NAMED:
        click.echo(f"passed over {len(skipped) - _NAMED} more", err=True)
    click.echo(f"{chosen}, sha256 {chosen.sha256[:16]}", err=True)
    click.echo(str(out))


@command.command("decision")
@click.argument("bundle")
@click.argument("labels", metavar="[LABELS.CSV]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--method",
    type=click.Choice(["shift", "platt"]),
    default="shift",
    show_default=True,
    help="shift: the best balanced accuracy; platt: logits that mean probabilities.",
)
@click.option("--undo", is_flag=True, help="Go back to the decision before the last one.")
def decision(bundle: str, labels: Path | None, method: str, undo: bool) -> None:
    """Fit BUNDLE's decision to LABELS.CSV (`filename,label`; 0 real, 1 synthetic).

    The written logit becomes a * logit + b, so that above 0 stays synthetic. The detector's own
    logit is there as before with `trtdet score --raw`.

    \b
    Example:
      trtdet calibrate decision npr labels.csv
      trtdet calibrate decision npr --undo
    """
    from trtdet.calibration.place_decision import fit_bundle, undo_decision
    from trtdet.engine.bundle import open_bundle
    from trtdet.engine.store import find_bundle
    from trtdet.engine.tensorrt import GpuOptions

    folder = find_bundle(bundle)
    if undo == (labels is not None):
        raise InputError("give LABELS.CSV to fit a decision, or --undo to go back, one of them")
    if labels is None:
        now = undo_decision(folder)
        click.echo(f"the decision is {now.scale:g} * logit + {now.shift:g} again", err=True)
        return
    gpu = GpuOptions(on_miss=compile_for_this_gpu, say=say)
    fit, refused = fit_bundle(folder, labels, method, gpu)  # type: ignore[arg-type]
    for line in refused[:_NAMED]:
        click.echo(f"left out: {line}", err=True)
    before, after = fit.balanced_accuracy
    click.echo(
        f"{fit.decision.scale:.4g} * logit + {fit.decision.shift:.4g}, on {fit.images} images: "
        f"balanced accuracy {before:.3f}, then {after:.3f}; cross-entropy "
        f"{fit.cross_entropy[0]:.3f}, then {fit.cross_entropy[1]:.3f} (cross-validated); AUC "
        f"{fit.auc:.3f} as before",
        err=True,
    )
    if report := open_bundle(folder).precision_report:
        click.echo(f"fewer bits, judged at this decision: {report['verdict']}", err=True)
    if after < before:
        click.echo(
            "on images that it was not fitted on it is worse than what it replaces: see --undo",
            err=True,
        )
