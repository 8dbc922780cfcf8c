"""The tables of how fast it is, and of what was verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trtdet.benchmarks.markdown import markdown, setting

_NATIVE = {"aligned-ours-sync": "aligned", "npr-native": "npr, native",
           "ferretnet-s-native": "ferretnet-s, native"}  # fmt: skip


def pipeline(results: Mapping[str, Any]) -> str:
    """The whole command beside its two halves alone, and its memory."""
    record = results["pipeline"]
    columns = ("engine", "decode alone", "inference alone", "ceiling", "whole command", "share",
               "peak, 5,000 rows", "50,000 rows")  # fmt: skip
    rows = [
        (
            row["engine"],
            *(f"{row[name]:.0f}/s" for name in ("decode", "inference", "ceiling", "whole")),
            f"{row['share']:.2f}",
            *(f"{row['peak_mib'][count]:.0f} MiB" for count in ("5000", "50000")),
        )
        for row in record["results"]
    ]
    rounds = f"float32; medians of {record['rounds']} alternating rounds."
    return f"On {setting(record)}, {rounds}\n\n{markdown(columns, rows)}"


def startup(results: Mapping[str, Any]) -> str:
    """From nothing to a score."""
    found = results["startup"]["results"]
    rows = [
        ("`trtdet --help`", f"{found['help_s']:.2f} s"),
        ("the first score of a new process, FerretNet-S", f"{found['first_score_s']:.2f} s"),
        ("the base install on disk", f"{sum(found['install_mib'].values()):.0f} MiB"),
    ]
    return markdown(("start-up", ""), rows)


def native(results: Mapping[str, Any]) -> str:
    """What native resolution costs by the size of the image."""
    columns = ("engine", "Mpixel", "tiles", "overhead", "seconds per image", "peak memory")
    files = ("native-nodown", "native-nodown-24", "native-small")
    rows = []
    for name in files:
        alone = " (one image, on a core that others used)" if results[name]["copies"] == 1 else ""
        for row in results[name]["results"]:
            digits = 0 if row["seconds"] >= 1000 else 1
            rows.append((
                _NATIVE[row["engine"]], row["megapixels"], row["tiles"], f"{row['overhead']:.2f}",
                f"{row['seconds']:.{digits}f}{alone}", f"{row['peak_mib']:.0f} MiB",
            ))  # fmt: skip
    return markdown(columns, rows)


def rine_work(results: Mapping[str, Any]) -> str:
    """What leaving dead weight out of RINE's tower saves."""
    work = results["rine"]["work"]
    paper, ours = work["paper"], work["trtdet"]

    def saved(key: str) -> float:
        return 1.0 - float(ours[key] / paper[key])

    return markdown(
        ("ViT-L/14 with RINE's head", "as upstream runs it", "in the bundle"),
        [
            (
                "multiply-adds per image",
                f"{paper['multiply_adds'] / 1e9:.1f} G",
                f"{ours['multiply_adds'] / 1e9:.1f} G (-{saved('multiply_adds'):.1%})".replace(
                    "%", " %"
                ),
            ),
            (
                "nodes of the graph after simplification",
                paper["nodes"],
                f"{ours['nodes']} (-{saved('nodes'):.0%})".replace("%", " %"),
            ),
        ],
    )


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "pipeline": pipeline,
    "startup": startup,
    "native": native,
    "rine-work": rine_work,
}
