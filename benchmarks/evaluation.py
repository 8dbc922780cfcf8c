"""What detectors reach on labelled images, and whether they differ by more than chance.

    scores ─▶ metrics with intervals ─▶ groups, calibration, robustness ─▶ a report

Nothing here scores: logits come from the engine itself (`trtdet.benchmarks.evaluate_bundles`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from trtdet.benchmarks.evaluation_report import (
    ACCURACY,
    AP,
    AUC,
    BALANCED,
    BEST_ACCURACY,
    BEST_BALANCED,
    CUP_WEIGHTS,
    FOUND,
    PASSED,
    Comparison,
    CupScore,
    Curve,
    Detector,
    Histogram,
    Measured,
    MeasuredGroup,
    Mistake,
    Report,
    Result,
    Settings,
)
from trtdet.benchmarks.groups import Group, find_groups
from trtdet.calibration.bootstrap import draw_metrics, interval, with_intervals
from trtdet.calibration.interval import Interval, share_in_pictures
from trtdet.calibration.labels import REAL, SYNTHETIC, LabelledImage
from trtdet.calibration.metrics import (
    Counts,
    Labels,
    Metric,
    Scores,
    accuracy_at,
    area_under_roc,
    balanced_accuracy,
    balanced_accuracy_at,
    best_threshold,
    count_scores,
    mean_precision,
    roc_curve,
    true_negative_rate,
    true_positive_rate,
)
from trtdet.calibration.pictures import Pictures, number_pictures, pictures_of
from trtdet.calibration.reliability import calibration_error, reliability
from trtdet.calibration.significance import accuracy_difference, auc_difference, holm

MISTAKES = 5  # that are named, of each class

_FEWEST_COMPARED = 2  # pictures of each class: DeLong's test needs a variance
_ROC_POINTS = 256
_HISTOGRAM_BINS = (10, 40)  # at least, at most


def make_report(
    data: str,
    images: Sequence[LabelledImage],
    names: Sequence[str],
    detectors: Sequence[Detector],
    settings: Settings,
) -> Report:
    """Measure every detector, and each pair. `names` are the images', as they are shown."""
    labels = np.array([each.label for each in images], np.int64)
    groups = find_groups(images, settings.smallest_group)
    pictures = number_pictures(images)
    return Report(
        data=data,
        images=len(images),
        pictures=int(pictures.max()) + 1,
        real=int((labels == REAL).sum()),
        synthetic=int((labels == SYNTHETIC).sum()),
        settings=settings,
        results=[
            _result(each, images, names, labels, pictures, groups, settings) for each in detectors
        ],
        comparisons=_compare(labels, pictures, detectors, settings),
    )


def measure(
    labels: Labels,
    logits: Scores,
    pictures: Pictures,
    settings: Settings,
    threshold: float | None = None,
) -> Measured:
    """The metrics of images that were scored; `threshold` adds those at the one that is best on
    all images.

    The intervals are the bootstrap's, and Wilson's of a class by itself, all over pictures; one at
    the best threshold holds it where it is.
    """
    real, synthetic = int((labels == REAL).sum()), int((labels == SYNTHETIC).sum())
    found: dict[str, Interval] = {}
    if real and synthetic:
        metrics: dict[str, Metric] = {
            AUC: area_under_roc,
            AP: mean_precision,
            BALANCED: balanced_accuracy_at,
            ACCURACY: accuracy_at,
        }
        if threshold is not None:
            metrics[BEST_BALANCED] = partial(balanced_accuracy_at, threshold=threshold)
            metrics[BEST_ACCURACY] = partial(accuracy_at, threshold=threshold)
        found |= with_intervals(
            metrics, labels, logits, pictures, rounds=settings.rounds, seed=settings.seed
        )
    for name, label, count in ((FOUND, SYNTHETIC, synthetic), (PASSED, REAL, real)):
        if count:
            right = (logits[labels == label] > 0) == (label == SYNTHETIC)
            found[name] = share_in_pictures(right, pictures_of(labels, label, pictures))
    if len(found) == 1:
        found[ACCURACY] = next(iter(found.values()))
    return Measured(real, synthetic, found)


def cup_score(
    parts: Sequence[str], labels: Labels, logits: Scores, pictures: Pictures, settings: Settings
) -> CupScore | None:
    """The VIP Cup's score, where both parts have images of both classes."""
    named = np.array(parts)
    total, drawn, intervals = 0.0, np.zeros(settings.rounds), {}
    for part, weight in CUP_WEIGHTS.items():
        inside = named == part
        if len(set(labels[inside].tolist())) < 2:
            return None
        draws = draw_metrics(
            {BALANCED: balanced_accuracy_at},
            labels[inside],
            logits[inside],
            pictures[inside],
            rounds=settings.rounds,
            seed=settings.seed + int(part),  # the parts' images are drawn independently
        )[BALANCED]
        value = balanced_accuracy(labels[inside], logits[inside])
        intervals[part] = interval(value, draws)
        total += weight * value
        drawn += weight * draws
    return CupScore(interval(total, drawn), intervals)


def _result(
    detector: Detector,
    images: Sequence[LabelledImage],
    names: Sequence[str],
    labels: Labels,
    pictures: Pictures,
    groups: Sequence[Group],
    settings: Settings,
) -> Result:
    scored = ~np.isnan(detector.logits)
    known, logits = labels[scored], detector.logits[scored]
    counts = count_scores(known, logits)
    threshold = best_threshold(counts)
    bins = reliability(known, logits, pictures[scored])
    measured = [
        MeasuredGroup(
            group.kind,
            group.name,
            measure(
                labels[members], detector.logits[members], pictures[members], settings, threshold
            ),
        )
        for group in groups
        for members in [group.members & scored]
    ]
    parts = [each.part for each, kept in zip(images, scored, strict=True) if kept]
    return Result(
        name=detector.name,
        engine=detector.engine,
        trained_on=detector.trained_on,
        failed=int((~scored).sum()),
        failures=detector.reasons,
        overall=measure(known, logits, pictures[scored], settings, threshold),
        threshold=threshold,
        cup=cup_score(parts, known, logits, pictures[scored], settings),
        groups=measured,
        bins=bins,
        calibration_error=calibration_error(bins),
        roc=_roc(counts),
        histogram=_histogram(known, logits),
        mistakes=_mistakes(images, names, labels, detector.logits),
        robustness=detector.robustness,
    )


def _compare(
    labels: Labels, pictures: Pictures, detectors: Sequence[Detector], settings: Settings
) -> list[Comparison]:
    """Every pair, in the order of the detectors; corrected for being several.

    A pair that scored images of fewer than two pictures of a class together is left out.
    """
    found = []
    for first, second in combinations(detectors, 2):
        both = ~np.isnan(first.logits) & ~np.isnan(second.logits)
        pair = (labels[both], first.logits[both], second.logits[both], pictures[both])
        known = [set(pair[-1][pair[0] == label].tolist()) for label in (REAL, SYNTHETIC)]
        if min(map(len, known)) < _FEWEST_COMPARED:
            continue
        accuracy = accuracy_difference(*pair, rounds=settings.rounds, seed=settings.seed)
        found.append((first.name, second.name, int(both.sum()), auc_difference(*pair), accuracy))
    auc_holm = holm([auc.p for *_names, auc, _accuracy in found])
    accuracy_holm = holm([accuracy.p for *_names, accuracy in found])
    return [
        Comparison(first, second, count, auc, auc_p, accuracy, accuracy_p)
        for (first, second, count, auc, accuracy), auc_p, accuracy_p in zip(
            found, auc_holm, accuracy_holm, strict=True
        )
    ]


def _roc(counts: Counts) -> Curve:
    false, true = roc_curve(counts)
    kept = np.unique(np.linspace(0, len(false) - 1, min(_ROC_POINTS, len(false))).astype(int))
    at_zero = (1.0 - float(true_negative_rate(counts)), float(true_positive_rate(counts)))
    return Curve(false[kept].tolist(), true[kept].tolist(), at_zero)


def _histogram(labels: Labels, logits: Scores) -> Histogram:
    """Over the middle 99 % of the logits, with 0 among the edges."""
    low, high = np.quantile(logits, [0.005, 0.995])
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    fewest, most = _HISTOGRAM_BINS
    bins = min(max(fewest, round(2.0 * len(logits) ** (1 / 3))), most)  # the Rice rule
    step = (high - low) / bins or 1.0
    first, last = int(np.floor(low / step)), int(np.ceil(high / step))
    edges = step * np.arange(first, max(last, first + 1) + 1)
    inside = np.clip(logits, edges[0], edges[-1])
    real, synthetic = (np.histogram(inside[labels == label], edges)[0] for label in (0, 1))
    return Histogram(edges.tolist(), real.tolist(), synthetic.tolist())


def _mistakes(
    images: Sequence[LabelledImage], names: Sequence[str], labels: Labels, logits: Scores
) -> list[Mistake]:
    """Of each class the images furthest on the wrong side, the worst first."""
    found = []
    for label, sign in ((REAL, 1.0), (SYNTHETIC, -1.0)):
        wrongness = np.where(labels == label, sign * logits, np.nan)
        order: NDArray[np.int64] = np.argsort(-wrongness, kind="stable")  # NaN comes last
        for index in order[:MISTAKES]:
            if wrongness[index] > 0:
                each = images[index]
                origin = each.generator if label == SYNTHETIC else each.source or each.generator
                found.append(Mistake(names[index], label, origin, float(logits[index])))
    return found
