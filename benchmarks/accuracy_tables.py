"""The tables of what detectors reach, and of what fewer bits cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trtdet.benchmarks.markdown import interval, markdown

_METRICS = ("AUC", "AP", "balanced accuracy")
_NETWORKS = {"ferretnet": "FerretNet-S", "tiny-ladeda": "Tiny-LaDeDa (ForenSynth)"}
_FILES = {
    ("cup", "all files"): "cup protocol, `val`",
    ("images", "all files"): "raw files",
    ("images", "png synthetic, all real"): "png synthetic, all real",
}
_FOLDS = ("fold 0", "fold 1", "fold 2")


def accuracy(results: Mapping[str, Any]) -> str:
    """Released detectors on the files of several formats and under the cup's protocol."""
    images, cup = results["accuracy-images"]["results"], results["accuracy-cup"]["results"]
    rows = []
    for engine in images:
        (whole,) = cup[engine]
        for group in [*images[engine], {**whole, "name": "cup protocol"}]:
            figures = [group["metrics"][name] for name in _METRICS]
            shown = [interval([each["value"], each["low"], each["high"]]) for each in figures]
            files = f"{group['real']} / {group['synthetic']}"
            rows.append((engine, group["name"], files, *shown))
    return markdown(("engine", "files", "real / synthetic", *_METRICS), rows)


def precision(results: Mapping[str, Any]) -> str:
    """What fewer bits cost, on released weights and real files."""
    columns = ("network", "files", "precision, calibrated on", *_METRICS,
               "99 % within (deviations)", "flips")  # fmt: skip
    rows = [row for name in _NETWORKS for row in _precision(results, name)]
    return markdown(columns, rows)


def _precision(results: Mapping[str, Any], name: str) -> Iterator[tuple[str, ...]]:
    for row in results[f"precision-{name}"]["results"]:
        files = _FILES.get((row["labels"], row["files"]))
        if files is None:
            continue
        bits = row["precision"].upper()
        if row["precision"] == "int8":
            bits += f", {row['calibrated on']}"
        figures = (f"{row[metric]:.4f}" for metric in _METRICS)
        yield (
            _NETWORKS[name], f"{files} ({row['images']})", bits, *figures,
            f"{row['p99']['value']:.3f}", f"{row['flips']['value']:.1%}",
        )  # fmt: skip


def starter(results: Mapping[str, Any]) -> str:
    """The starter beside released detectors, on the same images."""
    found = results["starter"]["results"]
    engines = {"starter": found, **found["released detectors, same images"]}
    rows = [
        (
            name,
            interval(each["validation"]["AUC"]),
            interval(each["unseen sources"]["mean AUC"]),
            *(interval(each["unseen sources"][fold]["AUC"]) for fold in _FOLDS),
        )
        for name, each in engines.items()
    ]
    return markdown(("detector", "`val`", "unseen sources, mean", *_FOLDS), rows)


def starter_perturbed(results: Mapping[str, Any]) -> str:
    """The starter on images that were compressed or resized."""
    found = results["starter"]["results"]["validation, perturbed"]
    columns = ("perturbed after the protocol", "AUC on `val`", "balanced accuracy")
    return markdown(
        columns,
        [
            (name, interval(each["AUC"]), interval(each["balanced accuracy"]))
            for name, each in found.items()
        ],
    )


def starter_generators(results: Mapping[str, Any]) -> str:
    """The starter by generator, of those that it knows."""
    return _by_generator(
        results,
        "validation, by generator against all real images",
        ("generator (files)", "AUC against all real images of `val`"),
    )


def starter_unseen(results: Mapping[str, Any]) -> str:
    """The starter by generator, of those that it has not seen."""
    return _by_generator(
        results,
        "unseen sources, by generator against the real images of its fold",
        ("generator, unseen (files)", "AUC against the real images of its fold"),
    )


def _by_generator(results: Mapping[str, Any], key: str, columns: tuple[str, str]) -> str:
    found = results["starter"]["results"][key]
    return markdown(
        columns,
        [(f"{name} ({each['synthetic']})", interval(each["AUC"])) for name, each in found.items()],
    )


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "accuracy": accuracy,
    "precision": precision,
    "starter": starter,
    "starter-perturbed": starter_perturbed,
    "starter-generators": starter_generators,
    "starter-unseen": starter_unseen,
}
