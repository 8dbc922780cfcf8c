"""What bundles reach on labelled images: AUC, AP and balanced accuracy, per group of files.

    python -m trtdet.benchmarks.accuracy labels.csv BUNDLE [BUNDLE ...] [--out results.json]

`labels.csv` has the columns `filename,label` (1 synthetic, 0 real), and lies beside its images.
Every image is scored by the command line itself. Where files have several formats, the format is a
shortcut, so besides all files there is a group for each format of synthetic files against all real
files, and one for the files of each format alone, where both classes have it.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.benchmarks.record import describe_run
from trtdet.calibration.labels import LabelledImage, read_labels
from trtdet.calibration.metrics import (
    Interval,
    Labels,
    Scores,
    average_precision,
    balanced_accuracy,
    roc_auc,
    with_interval,
)

METRICS = {
    "AUC": roc_auc,
    "AP": average_precision,
    "balanced accuracy": balanced_accuracy,
}


@dataclass(frozen=True)
class Group:
    """One line of the report: real files against some of the synthetic ones."""

    name: str
    real: int
    synthetic: int
    metrics: dict[str, Interval]


def main() -> None:
    """Score, measure, print a Markdown table, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("labels", type=Path)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = {bundle: measure(options.labels, bundle) for bundle in options.bundles}
    print(as_markdown(results))
    if options.out:
        record = {
            **describe_run(),
            "labels": options.labels.parent.name,
            "results": {
                name: [asdict(group) for group in found] for name, found in results.items()
            },
        }
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def measure(labels_csv: Path, bundle: str) -> list[Group]:
    """The groups of a labelled CSV under one bundle."""
    images = read_labels(labels_csv)
    labels = np.array([each.label for each in images])
    scores = _scores(labels_csv, bundle)
    return [_group(name, labels[kept], scores[kept]) for name, kept in by_format(images).items()]


def by_format(images: Sequence[LabelledImage]) -> dict[str, NDArray[np.bool_]]:
    """All files; each format's synthetic files with all real ones; each format alone."""
    labels = np.array([each.label for each in images])
    formats = np.array([each.path.suffix.lower() for each in images])
    groups = {"all files": np.ones(len(labels), np.bool_)}
    if len(set(formats)) > 1:
        for suffix in sorted(set(formats[labels == 1])):
            alike = formats == suffix
            groups[f"{suffix[1:]} synthetic, all real"] = (labels == 0) | alike
            if (labels[alike] == 0).any():
                groups[f"{suffix[1:]} alone"] = alike
    return groups


def as_markdown(results: dict[str, list[Group]]) -> str:
    """A table with a row per bundle and group."""
    lines = [
        f"| engine | files | real / synthetic | {' | '.join(METRICS)} |",
        f"|--|--|--|{'--|' * len(METRICS)}",
    ]
    for bundle, groups in results.items():
        for group in groups:
            cells = " | ".join(str(group.metrics[name]) for name in METRICS)
            files = f"{group.name} | {group.real} / {group.synthetic}"
            lines.append(f"| {Path(bundle).name} | {files} | {cells} |")
    return "\n".join(lines)


def _group(name: str, labels: Labels, scores: Scores) -> Group:
    metrics = {key: with_interval(metric, labels, scores) for key, metric in METRICS.items()}
    return Group(name, int((labels == 0).sum()), int(labels.sum()), metrics)


def _scores(labels_csv: Path, bundle: str) -> Scores:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "scores.csv"
        command: list[Any] = [sys.executable, "-m", "trtdet", "score", "--engine", bundle]
        subprocess.run([*command, labels_csv, output], check=True)
        with output.open(newline="", encoding="utf-8") as file:
            return np.array([float(row["logit"]) for row in csv.DictReader(file)])


if __name__ == "__main__":
    main()
