"""What a precision is chosen with: the request, and the images that it is measured on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from trtdet.build.placing import OnStage
from trtdet.calibration.draw import draw_set
from trtdet.calibration.gate import Labels, Limits
from trtdet.calibration.generated import generated_set
from trtdet.calibration.images import FEWEST, FEWEST_GATED, CalibrationSet, read_set
from trtdet.calibration.limits import Method
from trtdet.calibration.window import WINDOW, seen
from trtdet.calibration.wiring import Shape
from trtdet.engine.bundle import CARRY, COLUMNS, INPUT_NAME, ROWS, Bundle
from trtdet.engine.decision import Decision
from trtdet.engine.geometry import Geometry, Pixels
from trtdet.engine.tiles import Tiling
from trtdet.errors import InputError

Precision = Literal["fp32", "fp16", "int8", "auto"]


@dataclass(frozen=True)
class PrecisionRequest:
    """What the user asked for."""

    precision: Precision = "fp32"
    calibration: Path | None = None  # a manifest, a CSV or a folder; None: generated images
    method: Method = "percentile"
    limits: Limits = field(default_factory=Limits)
    report_only: bool = False  # go on where the limits are not kept
    search_minutes: float = 10.0


@dataclass(frozen=True)
class Frame:
    """What of a bundle decides how its graph is run and read."""

    geometry: Geometry
    tiling: Tiling | None
    outputs: tuple[str, ...]
    decision: Decision
    batch: int
    fixed: frozenset[str] = frozenset()  # weights that nobody learned

    def input_shapes(self) -> dict[str, Shape]:
        """Shapes that the graph takes, for one image."""
        if self.tiling is None:
            return {INPUT_NAME: (self.geometry.views, *self.geometry.fixed_size, 3)}
        cells = WINDOW // self.tiling.stride
        carry = (1, self.tiling.channels)
        return {INPUT_NAME: (1, WINDOW, WINDOW, 3), ROWS: (cells,), COLUMNS: (cells,), CARRY: carry}


def frame_of(bundle: Bundle, fixed: frozenset[str] = frozenset()) -> Frame:
    """The frame of a bundle; `fixed` are weights of its graph that nobody learned."""
    return Frame(
        bundle.geometry, bundle.tiling, bundle.outputs, bundle.decision, bundle.batch, fixed
    )


@dataclass(frozen=True)
class Material:
    """A calibration set as one network sees it."""

    chosen: CalibrationSet
    gate: list[Pixels]  # [views, H, W, 3] each; at native resolution the image's middle
    labels: Labels | None  # of the gate's images, where all have one

    @property
    def gated(self) -> bool:
        """Whether there are enough images to judge by."""
        return len(self.gate) >= FEWEST_GATED


def gather(
    request: PrecisionRequest, geometry: Geometry, tiling: Tiling | None, on_stage: OnStage
) -> Material | None:
    """The images that FP16 and INT8 need; None for FP32.

    Raises InputError for too few of them, before any work.
    """
    if request.precision == "fp32":
        return None
    chosen = _choose_set(request.calibration)
    on_stage(f"images     {chosen}")
    if chosen.generated:
        on_stage("           they stand in for yours: give --calibration, and scores stay closer")
    images = chosen.of("gate")
    if len(chosen.of("calibration")) < FEWEST:
        raise InputError(f"calibration needs {FEWEST} images or more: make a larger set")
    if len(images) < FEWEST_GATED and request.precision == "int8" and not request.report_only:
        raise InputError(
            f"{len(images)} images are too few to judge an INT8 engine by: give {FEWEST_GATED} "
            "beside those to calibrate on, or --report-only for an engine that is not gated"
        )
    if not images:
        raise InputError(
            f"all {len(chosen.images)} images are needed to calibrate on, and none is left to "
            "judge by: give more"
        )
    views = [seen(each.views(geometry), tiling) for each in images]
    if len({each.label for each in images} & {0, 1}) < 2:
        on_stage("           without labels of both classes: the AUC is not judged")
    known = [each.label for each in images if each.label is not None]
    labels = np.array(known, np.int64) if known and len(known) == len(images) else None
    return Material(chosen, views, labels)


def _choose_set(source: Path | None) -> CalibrationSet:
    if source is None:
        return generated_set()
    return read_set(source) if source.suffix == ".json" else draw_set(source)
