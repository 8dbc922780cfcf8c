"""What an evaluation found: the metrics' names, and plain data for pages, tables and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trtdet.benchmarks.groups import SMALLEST
from trtdet.calibration.bootstrap import ROUNDS
from trtdet.calibration.interval import Interval
from trtdet.calibration.metrics import Scores
from trtdet.calibration.reliability import Bin
from trtdet.calibration.significance import Difference

AUC, AP = "AUC", "AP"
BALANCED, ACCURACY = "balanced accuracy", "accuracy"
BEST_BALANCED, BEST_ACCURACY = "best balanced accuracy", "accuracy at that threshold"
FOUND, PASSED = "synthetic found", "real passed"  # true positives, true negatives

# Of the VIP Cup 2022's final score, in balanced accuracy at logit > 0.
CUP_WEIGHTS = {"1": 0.7, "2": 0.3}


@dataclass(frozen=True)
class Measured:
    """What a detector reaches on some images: what both classes need is left out without them."""

    real: int
    synthetic: int
    metrics: dict[str, Interval]


@dataclass(frozen=True)
class MeasuredGroup:
    """The same for a group."""

    kind: str
    name: str
    measured: Measured


@dataclass(frozen=True)
class CupScore:
    """The VIP Cup's: 0.7 * part 1 + 0.3 * part 2, in balanced accuracy."""

    score: Interval
    parts: dict[str, Interval]


@dataclass(frozen=True)
class Curve:
    """The ROC, thinned, and where the decision lies on it."""

    false_positives: list[float]
    true_positives: list[float]
    at_zero: tuple[float, float]


@dataclass(frozen=True)
class Histogram:
    """How often logits fall between two edges; those beyond are in the outermost bins."""

    edges: list[float]
    real: list[int]
    synthetic: list[int]


@dataclass(frozen=True)
class Mistake:
    """An image far on the wrong side."""

    file: str
    label: int
    origin: str  # generator or source
    logit: float


@dataclass(frozen=True)
class Point:
    """A detector under one level of a distortion."""

    level: str
    failed: int
    measured: Measured


@dataclass(frozen=True)
class Detector:
    """A detector's logits."""

    name: str
    engine: str  # precision and backend
    trained_on: str  # as its bundle says
    logits: Scores  # [N], NaN where the image could not be scored
    reasons: dict[str, str]  # by file
    robustness: dict[str, list[Point]]  # by family of distortions


@dataclass(frozen=True)
class Result:
    """All that was measured of one detector."""

    name: str
    engine: str
    trained_on: str
    failed: int
    failures: dict[str, str]  # file: reason
    overall: Measured
    threshold: float  # of the best balanced accuracy, chosen on these very images
    cup: CupScore | None
    groups: list[MeasuredGroup]
    bins: list[Bin]
    calibration_error: float
    roc: Curve
    histogram: Histogram
    mistakes: list[Mistake]
    robustness: dict[str, list[Point]]


@dataclass(frozen=True)
class Comparison:
    """One detector against another on the images that both scored; p as it is, and Holm's."""

    first: str
    second: str
    images: int
    auc: Difference
    auc_holm: float
    accuracy: Difference  # balanced
    accuracy_holm: float


@dataclass(frozen=True)
class Settings:
    """What the numbers depend on besides images and detectors."""

    rounds: int = ROUNDS
    seed: int = 0
    smallest_group: int = SMALLEST


@dataclass(frozen=True)
class Report:
    """What several detectors reach on the same images."""

    data: str
    images: int
    pictures: int  # that the images were cut from
    real: int
    synthetic: int
    settings: Settings
    results: list[Result]
    comparisons: list[Comparison]

    @property
    def counted(self) -> str:
        """The images in words."""
        of = f" of {self.pictures:,} pictures" if self.pictures < self.images else ""
        return f"{self.real:,} real and {self.synthetic:,} synthetic images{of}"


def group_names(results: Sequence[Result], kind: str) -> list[str]:
    """The groups of a kind, in their order."""
    found: Mapping[str, None] = {
        group.name: None for result in results for group in result.groups if group.kind == kind
    }
    return list(found)
