"""What fewer bits cost on labelled files: logits, AUC, AP, balanced accuracy, decisions.

    python -m trtdet.benchmarks.precision FP32 OTHER [OTHER ...] --labels CSV [--labels CSV ...]

The first bundle is what the others are compared with, image by image. Files with a column `split`
other than `val` are left out where the CSV has one; formats are told apart as in
`trtdet.benchmarks.accuracy`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtdet.benchmarks.groups import by_format
from trtdet.benchmarks.record import describe_run
from trtdet.calibration.gate import compare
from trtdet.calibration.labels import VAL, LabelledImage, read_labels
from trtdet.calibration.metrics import average_precision, balanced_accuracy, roc_auc
from trtdet.calibration.scoring import score_images
from trtdet.engine.backends import choose_backend
from trtdet.engine.bundle import Bundle, open_bundle
from trtdet.engine.engine import open_engine
from trtdet.engine.store import find_bundle

_COLUMNS = (
    "files", "images", "engine", "calibrated on", "layers in 8 bits", "AUC", "AP",
    "balanced accuracy",
    "|d| max", "p99 / dev", "flips",
)  # fmt: skip


def main() -> None:
    """Score, compare, print a Markdown table, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--labels", type=Path, action="append", required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    bundles = [open_bundle(find_bundle(name)) for name in options.bundles]
    rows = [row for labels in options.labels for row in measure(labels, bundles)]
    print(as_markdown(rows))
    if options.out:
        record = {**describe_run(), "results": rows}
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def measure(labels_csv: Path, bundles: list[Bundle]) -> list[dict[str, Any]]:
    """A row for each group of files and each bundle."""
    images = [each for each in read_labels(labels_csv) if each.split in ("", VAL)]
    labels = np.array([each.label for each in images], np.int64)
    scores = [_scores(images, bundle) for bundle in bundles]
    rows = []
    for group, kept in by_format(images).items():
        for bundle, logits in zip(bundles, scores, strict=True):
            one = compare(scores[0][kept], logits[kept], labels[kept])
            wide = logits[kept].astype(np.float64)
            rows.append({
                "labels": labels_csv.parent.name, "files": group, "engine": bundle.name,
                "precision": bundle.precision, "calibrated on": _calibrated(bundle),
                "layers in 8 bits": bundle.precision_report.get("layers_in_8_bits", 0),
                "AUC": roc_auc(labels[kept], wide), "AP": average_precision(labels[kept], wide),
                "balanced accuracy": balanced_accuracy(labels[kept], wide), **asdict(one),
            })  # fmt: skip
    return rows


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{'--|' * len(_COLUMNS)}"]
    for row in rows:
        cells = (
            f"{row['labels']}: {row['files']}", row["images"],
            row["engine"], row["calibrated on"], row['layers in 8 bits'], f"{row['AUC']:.4f}",
            f"{row['AP']:.4f}", f"{row['balanced accuracy']:.4f}", f"{row['largest']:.3g}",
            f"{row['p99']['value']:.3f}", f"{row['flips']['value']:.2%}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _calibrated(bundle: Bundle) -> str:
    images = bundle.precision_report.get("images")
    if not images or bundle.precision == "fp32":
        return ""
    return "generated" if images["generated"] else "real"


def _scores(images: list[LabelledImage], bundle: Bundle) -> NDArray[np.float32]:
    backend, _rejected = choose_backend("auto")
    with open_engine(backend, bundle) as engine:
        logits, scored, refused = score_images(engine, images)
    if refused:
        raise SystemExit(f"{bundle.name} cannot score {refused[0]}")
    assert len(scored) == len(images)
    return logits[:, 0]


if __name__ == "__main__":
    main()
