"""What a bench found, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtdet.benchmarks.markdown import markdown, setting

Record = Mapping[str, Any]

# Percentiles of a latency, and how many it takes to tell one from the slowest of them.
PERCENTILES = {"p50": 1, "p90": 10, "p99": 100}

QUIET = 0.1  # of the cores: what others may take before the numbers are in doubt


def as_markdown(record: Record) -> str:
    """The whole record, the answer first."""
    parts = [
        f"# {record['engine']} ({record['precision']}) on {record['backend']}",
        answer(record),
        *(f"**{each}**" for each in doubts(record)),
        f"{images_of(record)}; {setting(record)}.",
        "## Stages",
        stage_table(record),
        "## The network alone",
        network_table(record),
        "## From files to a table",
        whole_table(record),
        "## The machine meanwhile",
        gauge_table(record),
    ]
    if record["left_out"]:
        parts += ["## Left out", "\n".join(f"- {each}" for each in record["left_out"])]
    return "\n\n".join(parts) + "\n"


def answer(record: Record) -> str:
    """How fast, and what holds it back."""
    best, bottleneck = record["best"], record["bottleneck"]
    work = record["work"]
    said = (
        f"{rate(best['images_per_s'])} images/s from files to a table (batch {best['batch']}, "
        f"{best['threads']} decoding threads), {record['share_of_ceiling']:.0%} of what the stages "
        f"allow. The bottleneck is {bottleneck['stage']}: {bottleneck['of_the_work']:.0%} of the "
        "work."
    )
    if "share_of_peak" in work:
        said += (
            f" The network reaches {prefixed(work['multiply_adds_per_s'])} multiply-adds/s, "
            f"{work['share_of_peak']:.0%} of the machine's peak in {work['peak']['precision']} "
            f"({prefixed(work['peak']['multiply_adds_per_s'])}/s, {work['peak']['how']})."
        )
    elif isinstance(work["multiply_adds"], str):
        said += f" Multiply-adds: {work['multiply_adds']}."
    return said


def doubts(record: Record) -> list[str]:
    """Why the numbers may not be the machine's."""
    found = []
    others = record["gauges"].get("other processes")
    if isinstance(others, float) and others > QUIET:
        found.append(
            f"Other processes took {others:.0%} of the cores meanwhile: measure again on a quiet "
            "machine"
        )
    halves = [each["halves"] for each in (*record["network"], *record["whole"])]
    known = [each for each in halves if each is not None]
    if unsteady := sum(not 0.9 < each < 1.1 for each in known):
        found.append(
            f"{unsteady} of {len(known)} settings were not steady: their halves differ by more "
            "than 10 %"
        )
    return found


def images_of(record: Record) -> str:
    """What was scored."""
    images = record["images"]
    kind = "drawn images" if images["drawn"] else "images"
    return (
        f"{images['files']} {kind} of {images['megapixels']:.2f} Mpixel and "
        f"{images['kilobytes']:.0f} kB on average"
    )


def stage_table(record: Record) -> str:
    """Each stage by itself and in the pipeline."""
    rows = [
        (name, micro(each["alone_us"]), micro(each["in_pipeline_us"]), f"{each['busy']:.0%}")
        for name, each in record["stages"].items()
    ]
    columns = ("stage", "alone, µs per image on one core", "in the pipeline, µs of a thread",
               "of what the machine can do at this rate")  # fmt: skip
    return markdown(columns, rows)


def network_table(record: Record) -> str:
    """Each batch and number of streams."""
    rows = [
        (
            each["batch"],
            each["streams"],
            f"{rate(each['images_per_s'])}/s",
            *(wait(each, name) for name in PERCENTILES),
            each["runs"],
        )
        for each in record["network"]
    ]
    columns = ("batch", "streams", "images", *PERCENTILES, "batches timed")
    return markdown(columns, rows)


def whole_table(record: Record) -> str:
    """Each batch and number of decoding threads."""
    rows = [
        (
            each["batch"],
            each["threads"],
            f"{rate(each['images_per_s'])}/s",
            *(wait(each, name) for name in PERCENTILES),
            each["rows"],
        )
        for each in record["whole"]
    ]
    columns = ("batch", "decoding threads", "images", *PERCENTILES, "rows timed")
    return markdown(columns, rows)


def gauge_table(record: Record) -> str:
    """Clocks, temperature, power, and others."""
    return markdown(("", "median", "lowest to highest"), gauge_rows(record))


def gauge_rows(record: Record) -> list[tuple[str, str, str]]:
    """A row for each gauge, or the reason why there is none."""
    rows = []
    for source, found in record["gauges"].items():
        if isinstance(found, float):
            rows.append((source, f"{found:.0%} of the cores", ""))
        elif isinstance(found, str):
            rows.append((source, found, ""))
        else:
            for name, each in found.items():
                ends = f"{each['low']:.4g} to {each['high']:.4g}"
                rows.append((f"{source}, {name}", f"{each['median']:.4g}", ends))
    return rows


def rate(value: float) -> str:
    """Three digits, or more where there are more before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def prefixed(value: float) -> str:
    """With G for 10^9, T for 10^12, and so on."""
    names = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
    name = max((each for each in names if names[each] <= value), key=lambda each: names[each])
    return f"{value / names[name]:.3g} {name}".rstrip()


def micro(value: float | None) -> str:
    """Microseconds."""
    return "" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def wait(row: Mapping[str, Any], name: str) -> str:
    """A percentile of a setting's latency, of its batches or rows."""
    return milli(row[f"{name}_ms"]) if is_known(row, name) else "-"


def is_known(row: Mapping[str, Any], name: str) -> bool:
    """Whether enough batches were timed: the slowest of twenty is no 99th percentile."""
    batches = row["runs"] if "runs" in row else row["rows"] // row["batch"]  # rows end together
    return bool(batches >= PERCENTILES[name])


def milli(value: float) -> str:
    """Milliseconds."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"
