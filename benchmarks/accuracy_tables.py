"""The tables of what detectors reach, and of what fewer bits cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trtdet.benchmarks.markdown import interval, markdown

_METRICS = ("AUC", "AP", "balanced accuracy")
_BEST = "best balanced accuracy"
_SETS = {"images": "raw files", "cup": "cup protocol", "cup-val": "cup protocol, `val`"}
_NETWORKS = {"ferretnet": "FerretNet-S", "tiny-ladeda": "Tiny-LaDeDa (ForenSynth)"}
_FILES = {
    ("cup", "all files"): "cup protocol, `val`",
    ("images", "all files"): "raw files",
    ("images", "png synthetic, all real"): "png synthetic, all real",
}
_FOLDS = ("fold 0", "fold 1", "fold 2")


def accuracy(results: Mapping[str, Any]) -> str:
    """Each detector on every set, and on the file formats of a set that has several."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for name, title in _SETS.items():
        for result in results[f"accuracy-{name}"]["results"]:
            rows = found.setdefault(result["name"], [])
            rows.append(_measured(result["name"], title, result["overall"]))
            rows += [
                _measured(result["name"], f"{title}: {group['name']}", group["measured"])
                for group in result["groups"]
                if group["kind"] == "format" and "AUC" in group["measured"]["metrics"]
            ]
    columns = ("engine", "files", "real / synthetic", *_METRICS, _BEST)
    return markdown(columns, [row for rows in found.values() for row in rows])


def robustness(results: Mapping[str, Any]) -> str:
    """AUC under every distortion, a column for each detector."""
    found = results["accuracy-cup-val"]["results"]
    rows = {
        "as is" if point["level"] == "as is" else f"{family} {point['level']}": [
            _auc(each["robustness"][family][place]) for each in found
        ]
        for family, points in found[0]["robustness"].items()
        for place, point in enumerate(points)
    }
    columns = ("AUC", *(each["name"] for each in found))
    return markdown(columns, [(title, *cells) for title, cells in rows.items()])


def generators(results: Mapping[str, Any]) -> str:
    """AUC of each generator's files against all real ones, a column for each detector."""
    found = results["accuracy-cup-val"]["results"]
    tables = [
        {
            f"{group['name']} ({group['measured']['synthetic']})": _auc(group)
            for group in each["groups"]
            if group["kind"] == "generator"
        }
        for each in found
    ]
    columns = ("AUC, generator (files)", *(each["name"] for each in found))
    return markdown(columns, [(name, *(table[name] for table in tables)) for name in tables[0]])


def _measured(engine: str, files: str, measured: Mapping[str, Any]) -> tuple[str, ...]:
    metrics = measured["metrics"]
    figures = (interval(metrics[name]) if name in metrics else "-" for name in (*_METRICS, _BEST))
    return (engine, files, f"{measured['real']} / {measured['synthetic']}", *figures)


def _auc(point: Mapping[str, Any]) -> str:
    return f"{point['measured']['metrics']['AUC'][0]:.3f}"


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
    "generators": generators,
    "robustness": robustness,
    "precision": precision,
    "starter": starter,
    "starter-perturbed": starter_perturbed,
    "starter-generators": starter_generators,
    "starter-unseen": starter_unseen,
}
