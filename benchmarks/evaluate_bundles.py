"""Score labelled images with several bundles, and report what they reach."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from trtdet.benchmarks.evaluation import make_report
from trtdet.benchmarks.evaluation_report import Detector, Point, Report, Settings
from trtdet.benchmarks.robustness import draw_subset, measure_robustness, passes
from trtdet.calibration.labels import LabelledImage, check_classes
from trtdet.calibration.pictures import number_pictures
from trtdet.calibration.scoring import score_each
from trtdet.engine.backends import BackendStatus
from trtdet.engine.bundle import Bundle
from trtdet.engine.engine import open_engine
from trtdet.engine.ensemble import Ensemble, members_of
from trtdet.engine.tensorrt import GpuOptions

ROBUSTNESS_IMAGES = 200


@dataclass(frozen=True)
class Run:
    """How to score."""

    backend: BackendStatus
    settings: Settings = Settings()  # noqa: RUF009 - it is frozen
    robustness_images: int = ROBUSTNESS_IMAGES  # 0: none
    threads: int | None = None  # of decoding; None: as many as cores
    gpu: GpuOptions | None = None

    def images_scored(self, count: int) -> int:
        """How many images a bundle scores in a run over `count`, distorted ones included."""
        return count + passes() * min(self.robustness_images, count)


def evaluate_bundles(
    bundles: Sequence[Bundle | Ensemble],
    source: Path,
    images: Sequence[LabelledImage],
    run: Run,
    *,
    on_rows: Callable[[str, int], None] = lambda _name, _count: None,
) -> Report:
    """Score `images`, which were read from `source`, with every bundle in turn, and measure.

    `on_rows` hears a bundle's name and how many images it has just scored. Raises InputError where
    a bundle can score no image of one class.
    """
    folder = source if source.is_dir() else source.parent
    shown = [os.path.relpath(each.path, folder) for each in images]
    detectors = [
        detector
        for bundle, name in zip(bundles, _names(bundles), strict=True)
        for detector in _score(bundle, name, images, shown, run, partial(on_rows, name))
    ]
    data = source.name if source.is_dir() else f"{source.resolve().parent.name}/{source.name}"
    splits = {each.split for each in images}
    if len(splits) == 1 and splits != {""}:
        data += f", split {splits.pop()}"
    return make_report(data, images, shown, detectors, run.settings)


def _score(
    bundle: Bundle | Ensemble,
    name: str,
    images: Sequence[LabelledImage],
    shown: Sequence[str],
    run: Run,
    on_rows: Callable[[int], None],
) -> list[Detector]:
    """A detector for each of the bundle's logits; `shown` are the images' names."""
    paths = [each.path for each in images]
    labels = np.array([each.label for each in images], np.int64)
    with open_engine(run.backend, bundle, gpu=run.gpu) as engine:
        logits, reasons = score_each(engine, paths, on_rows=on_rows, threads=run.threads)
        scored = np.asarray(~np.isnan(logits).any(axis=1))
        what = f"what {name} can score"
        if reasons:
            file, reason = next(iter(reasons.items()))
            what += f" ({len(reasons)} images it cannot, for instance {file}: {reason})"
        check_classes([each for each, kept in zip(images, scored, strict=True) if kept], what)
        curves: list[dict[str, list[Point]]] = [{} for _column in engine.columns]
        if run.robustness_images:
            subset = draw_subset(labels, scored, run.robustness_images, run.settings.seed)
            curves = measure_robustness(
                engine,
                [paths[index] for index in subset.tolist()],
                labels[subset],
                number_pictures([images[index] for index in subset.tolist()]),
                logits[subset],
                run.settings,
                on_rows=on_rows,
                threads=run.threads,
            )
    trained_on = "; ".join(dict.fromkeys(member.trained_on for member in members_of(bundle)))
    return [
        Detector(
            name=f"{name}: {column}" if len(engine.columns) > 1 else name,
            engine=f"{bundle.precision}, {engine.name}",
            trained_on=trained_on,
            logits=logits[:, number].astype(np.float64),
            reasons={
                file: reasons[str(path)]
                for file, path in zip(shown, paths, strict=True)
                if str(path) in reasons
            },
            robustness=curves[number],
        )
        for number, column in enumerate(engine.columns)
    ]


def _names(bundles: Sequence[Bundle | Ensemble]) -> list[str]:
    """The bundles' names, with their folders where several have the same."""
    count = Counter(bundle.name for bundle in bundles)
    return [
        bundle.name if count[bundle.name] == 1 else f"{bundle.name} ({bundle.path})"
        for bundle in bundles
    ]
