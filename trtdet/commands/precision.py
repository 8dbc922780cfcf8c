"""`trtdet build`'s options about fewer bits, and what they ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trtdet.commands.options import together
from trtdet.errors import InputError

if TYPE_CHECKING:
    from trtdet.build.material import PrecisionRequest


class Share(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A share: 1% or 0.01."""

    name = "share"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number between 0 and 1."""
        text = str(value).strip()
        try:
            share = float(text[:-1]) / 100.0 if text.endswith("%") else float(text)
        except ValueError:
            share = -1.0
        if not 0.0 <= share <= 1.0 or (share == 1.0 and not text.endswith("%")):
            self.fail(f"{value} is no share: write 1% or 0.01", param, ctx)
        return share


precision_options = together(
    click.option("--fp16", is_flag=True, help="float16, but where it would lose too much."),
    click.option("--int8", is_flag=True, help="8 bits where they help, float16 elsewhere."),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "fp16", "int8", "auto"]),
        help="The same as one option; auto is the fastest that passes the limits [fp32].",
    ),
    click.option(
        "--calibration",
        metavar="SET",
        type=click.Path(path_type=Path),
        help="With fewer bits, images to measure with: a set of `trtdet calibrate set`, a CSV, "
        "or a folder [generated ones].",
    ),
    click.option(
        "--ranges",
        type=click.Choice(["max", "percentile", "mse", "entropy"]),
        default="percentile",
        show_default=True,
        help="How the range of 8 bits is chosen.",
    ),
    click.option(
        "--max-flips",
        type=Share(),
        default="1%",
        show_default=True,
        help="Of the decisions, how many may change.",
    ),
    click.option(
        "--max-p99",
        type=click.FloatRange(0),
        default=0.25,
        show_default=True,
        metavar="D",
        help="How far 99 % of the logits may move, in standard deviations of the logit.",
    ),
    click.option(
        "--max-auc-drop",
        type=click.FloatRange(0, 1),
        default=0.005,
        show_default=True,
        metavar="A",
        help="How far the AUC may fall, where the images have labels.",
    ),
    click.option(
        "--search-minutes",
        type=click.FloatRange(0),
        default=10.0,
        show_default=True,
        metavar="M",
        help="Time to find the layers that must not be in 8 bits, where all are too many.",
    ),
    click.option(
        "--report-only", is_flag=True, help="Measure, and keep an engine beyond the limits."
    ),
)


def precision_request(
    *,
    fp16: bool,
    int8: bool,
    precision: str | None,
    calibration: Path | None,
    ranges: str,
    max_flips: float,
    max_p99: float,
    max_auc_drop: float,
    search_minutes: float,
    report_only: bool,
) -> PrecisionRequest:
    """What the options ask for. Raises InputError where they contradict each other."""
    from trtdet.build.material import PrecisionRequest
    from trtdet.calibration.gate import Limits

    named = {precision} if precision else set()
    asked = named | {name for name, given in (("fp16", fp16), ("int8", int8)) if given}
    if len(asked) > 1:
        raise InputError(f"{', '.join(sorted(asked))} contradict each other: ask for one precision")
    chosen = asked.pop() if asked else "fp32"
    if chosen == "auto" and report_only:
        raise InputError("--precision auto keeps nothing beyond its limits: no --report-only")
    if not (max_p99 >= 0.0 and max_auc_drop >= 0.0 and search_minutes >= 0.0):  # nan is none
        raise InputError("--max-p99, --max-auc-drop and --search-minutes are numbers")
    if chosen == "fp32" and (calibration is not None or report_only):
        raise InputError("--calibration and --report-only are for --fp16, --int8, --precision auto")
    return PrecisionRequest(
        chosen,  # type: ignore[arg-type]
        calibration,
        ranges,  # type: ignore[arg-type]
        Limits(max_flips, max_p99, max_auc_drop),
        report_only,
        search_minutes,
    )
