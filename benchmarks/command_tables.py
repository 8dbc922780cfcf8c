"""The tables of what `trtdet bench` and `trtdet verify` found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trtdet.benchmarks.bench_text import QUIET, rate, wait
from trtdet.benchmarks.markdown import markdown


def bench(results: Mapping[str, Any]) -> str:
    """A row for each engine that was measured."""
    columns = ("engine", "files to table, images/s", "of the ceiling", "network alone, images/s",
               "batch 1: p50", "p90", "bottleneck", "of the machine's peak",
               "cores of others", "commit")  # fmt: skip
    rows = []
    for record in results["bench"].values():
        network = record["network"]
        fastest = max(each["images_per_s"] for each in network)
        single = min(network, key=lambda each: (each["batch"], each["streams"]))
        share = record["work"].get("share_of_peak")
        others = record["gauges"].get("other processes")
        bottleneck = record["bottleneck"]
        rows.append((
            f"{record['engine']} ({record['precision']})",
            rate(record["best"]["images_per_s"]),
            f"{record['share_of_ceiling']:.0%}",
            rate(fastest),
            wait(single, "p50"),
            wait(single, "p90"),
            f"{bottleneck['stage']} ({bottleneck['of_the_work']:.0%} of the work)",
            "not known" if share is None else f"{share:.0%}",
            _others(others),
            record["commit"],
        ))  # fmt: skip
    return markdown(columns, rows)


def verify(results: Mapping[str, Any]) -> str:
    """A row for each engine that was verified."""
    columns = ("engine", "weights", "drift from the record, of 1 + \\|logit\\|", "at most",
               "flips of float32", "rank correlation", "same bits", "decoders",
               "verdict")  # fmt: skip
    rows = []
    for name, record in results["verify"].items():
        checks = {check["name"]: check for check in record["checks"]}
        probes = checks["probes"]["values"]
        bits = checks.get("same bits", {"values": {"scored": 0, "ways": []}})["values"]
        decoders = checks["decoders"]["values"]
        rows.append((
            f"{name} ({record['precision']})",
            record["weights"],
            *_drift(record["precision"], probes, checks.get("gate")),
            f"{bits['scored']} images, {len(bits['ways'])} ways",
            f"{decoders['by_opencv']} of {decoders['files']} by OpenCV",
            record["verdict"],
        ))  # fmt: skip
    return markdown(columns, rows)


def _drift(
    precision: str, probes: Mapping[str, Any], gate: Mapping[str, Any] | None
) -> tuple[str, ...]:
    """Drift and its limit, flips, rank correlation: of the gate's images where they were scored.

    In fewer bits the probes have the engine's own logits, which say nothing of the paper's network.
    """
    if not probes:
        return ("beyond the limit", "-", "-", "-")
    drift = (f"{probes['max_relative']:.1g}", f"{probes['tolerance']:.1g}")
    compared = probes["compared"]
    if gate and gate["values"]:
        compared = gate["values"]["compared"]
    elif precision != "fp32":
        return (*drift, "-", "-")
    flips = sum(round(each["flips"]["value"] * each["images"]) for each in compared.values())
    images = sum(each["images"] for each in compared.values())
    rank = min(each["rank_correlation"] for each in compared.values())
    return (*drift, f"{flips} of {images}", f"{rank:.4f}")


def _others(share: float | str | None) -> str:
    if not isinstance(share, float):
        return "not known"
    return f"{share:.0%}" + (": not quiet" if share > QUIET else "")


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {"bench": bench, "verify": verify}
