"""The tables of trtdet beside its peers, and of what was verified."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtdet.benchmarks.markdown import markdown, setting

_TITLES = {"rine": "RINE, ViT-L/14", "npr": "NPR", "nodown": "NoDown ResNet-50, crop",
           "ferretnet": "FerretNet-S"}  # fmt: skip


_NETWORK = {"eager": "PyTorch eager", "torch.compile": "torch.compile",
            "ONNX Runtime": "ONNX Runtime", "benchmark_app": "benchmark_app",
            "trtdet network": "trtdet"}  # fmt: skip


def peers(results: Mapping[str, Any]) -> str:
    """From files to scores: images per second, and times the paper's script."""
    record = results["peers"]
    measured = {row["precision"] for row in record["results"]}
    precisions = [each for each in ("fp32", "int8") if each in measured]
    rows = []
    for net in record["weights"]:
        paper = best(record, net, "files", "paper script", "fp32")
        cells: list[str] = [_title(record, net), _rate(paper)]
        for precision in precisions:
            ours = best(record, net, "files", "trtdet", precision)
            cells += [_rate(ours), _ratio(ours, paper)]
        rows.append(cells)
    columns = ["from files to scores, images/s", "a paper's PyTorch script"]
    for precision in precisions:
        columns += [f"trtdet, {precision.upper()}", "times the script"]
    return f"{_about(record)}\n\n{markdown(columns, rows)}"


def peers_network(results: Mapping[str, Any]) -> str:
    """The network alone: images per second of every peer, and of trtdet's session."""
    record = results["peers"]
    rows = []
    for net in record["weights"]:
        for precision in ("fp32", "int8"):
            found = [best(record, net, "network", name, precision) for name in _NETWORK]
            if any(found):
                rows.append((f"{_title(record, net)}, {precision.upper()}", *map(_rate, found)))
    return markdown(("the network alone, images/s", *_NETWORK.values()), rows)


def peers_batches(results: Mapping[str, Any]) -> str:
    """Everything at the same batch: from files to scores, and the network alone."""
    record = results["peers"]
    rows: list[tuple[object, ...]] = []
    for net, precision, batch in dict.fromkeys(
        (row["net"], row["precision"], row["batch"]) for row in record["results"]
    ):
        paper = best(record, net, "files", "paper script", "fp32", batch)
        ours = best(record, net, "files", "trtdet", precision, batch)
        alone = [best(record, net, "network", name, precision, batch) for name in _NETWORK]
        files = (_rate(paper), _rate(ours), _ratio(ours, paper))
        rows.append((f"{_TITLES[net]}, {precision.upper()}", batch, *files, *map(_rate, alone)))
    columns = ("images/s", "batch", "paper's script, FP32", "trtdet", "times the script",
               *(f"alone: {name}" for name in _NETWORK.values()))  # fmt: skip
    return markdown(columns, rows)


def best(
    record: Mapping[str, Any],
    net: str,
    kind: str,
    contender: str,
    precision: str,
    batch: int | None = None,
) -> Mapping[str, Any] | None:
    """The row of this batch, or of the better one; None where it did not run."""
    rows = [
        row
        for row in record["results"]
        if (row["net"], row["kind"], row["contender"], row["precision"])
        == (net, kind, contender, precision)
        and batch in (None, row["batch"])
        and "images_per_s" in row
    ]
    return max(rows, key=lambda row: float(row["images_per_s"]), default=None)


def _about(record: Mapping[str, Any]) -> str:
    generated = [_TITLES[net] for net, each in record["weights"].items() if each["generated"]]
    versions = record["versions"]
    rounds = min(len(row["rounds"]) for row in record["results"] if "rounds" in row)
    medians = "one round" if rounds == 1 else f"medians of {rounds} alternating rounds"
    said = (
        f"On {setting(record)}; torch {versions.get('torch')}, ONNX Runtime "
        f"{versions.get('onnxruntime')}; {medians} of "
        f"{record['seconds']:g} s, every contender in a process of its own with "
        f"{record['threads']} threads, at the better of two batches."
    )
    return said + f" Weights are generated, not released, for {', '.join(generated)}." * bool(
        generated
    )


def _title(record: Mapping[str, Any], net: str) -> str:
    return _TITLES[net] + (" (generated weights)" if record["weights"][net]["generated"] else "")


def _rate(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    rate = float(row["images_per_s"])
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"


def _ratio(ours: Mapping[str, Any] | None, peer: Mapping[str, Any] | None) -> str:
    if ours is None or peer is None:
        return "-"
    return f"{ours['images_per_s'] / peer['images_per_s']:.2f}"
