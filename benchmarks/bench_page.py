"""What a bench found, as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from trtdet.benchmarks import bench_text as text
from trtdet.benchmarks.charts import (
    Axis,
    Line,
    bars,
    legend,
    line_chart,
    linear_axis,
    named_axis,
)
from trtdet.benchmarks.page import (
    Content,
    element,
    facts,
    grid,
    html_page,
    paragraph,
    section,
    table,
    tiles,
)

Record = Mapping[str, Any]
Row = Mapping[str, Any]


def bench_page(record: Record) -> str:
    """The whole page, as HTML."""
    doubts = [
        element("p", element("b", "In doubt. "), each, ".", role="note")
        for each in text.doubts(record)
    ]
    left_out = element("ul", *(element("li", each) for each in record["left_out"]))
    return html_page(
        f"{record['engine']}: how fast, and what holds it back",
        paragraph(text.answer(record)),
        *doubts,
        tiles(_tiles(record)),
        _stages(record),
        _network(record),
        _whole(record),
        section("The machine meanwhile", table(
            ("gauge", "median", "lowest to highest"), text.gauge_rows(record), texts=3)),
        _about(record),
        section("Left out", left_out) if record["left_out"] else None,
        element("footer", "Made by ", element("code", "trtdet bench"), ". Nothing on this page was "
                "loaded from anywhere."),
    )  # fmt: skip


def _tiles(record: Record) -> list[tuple[str, str, str]]:
    best, bottleneck, work = record["best"], record["bottleneck"], record["work"]
    quickest = min(record["network"], key=lambda each: each["p50_ms"])
    made = [
        ("images/s, from files to a table", text.rate(best["images_per_s"]),
         f"batch {best['batch']}, {best['threads']} decoding threads"),
        ("the shortest wait for the network", text.milli(quickest["p50_ms"]),
         f"median; p90 {text.wait(quickest, 'p90')}; batch {quickest['batch']}"),
        ("bottleneck", bottleneck["stage"], f"{bottleneck['of_the_work']:.0%} of the work"),
        ("of what the stages allow", f"{record['share_of_ceiling']:.0%}",
         f"the ceiling is {text.rate(record['ceiling_images_per_s'])} images/s"),
    ]  # fmt: skip
    if "share_of_peak" in work:
        peak = work["peak"]
        reached = text.prefixed(work["multiply_adds_per_s"])
        of = f"{text.prefixed(peak['multiply_adds_per_s'])} multiply-adds/s in {peak['precision']}"
        made.append(("of the machine's peak", f"{work['share_of_peak']:.0%}", f"{reached} of {of}"))
    return made


def _stages(record: Record) -> Element:
    stages: Mapping[str, Row] = record["stages"]
    most = max(1.0, *(each["busy"] for each in stages.values()))
    axis = linear_axis("busy", 0.0, most)
    rows: list[list[Content]] = [
        [
            name,
            text.micro(each["alone_us"]),
            text.micro(each["in_pipeline_us"]),
            f"{each['busy']:.0%}",
            bars(axis, [(f"{name}: {each['busy']:.0%}", each["busy"], _HUES[name])]),
        ]
        for name, each in stages.items()
    ]
    columns = ("stage", "alone on one core, µs per image", "in the pipeline, µs per image",
               "busy", "")  # fmt: skip
    return section(
        "Stages",
        table(columns, rows, drawings=1),
        note="How busy a stage keeps the machine at the rate of the whole: its seconds by itself, "
        "times the images per second, over all cores. On a CPU the stages share the cores. In the "
        "pipeline a stage's seconds are those of a thread, its waits for a core included.",
    )


_HUES = {"decode": 0, "geometry": 3, "copy": 4, "compute": 1, "write": 2}


def _network(record: Record) -> Element:
    rows: Sequence[Row] = sorted(record["network"], key=lambda row: (row["streams"], row["batch"]))
    batches = named_axis("batch", [str(each) for each in sorted({row["batch"] for row in rows})])
    by_streams = {
        _streams(count): [row for row in rows if row["streams"] == count]
        for count in sorted({row["streams"] for row in rows})
    }
    hues = {name: _FIRST_STREAMS_HUE + place for place, name in enumerate(by_streams)}
    rates = line_chart(
        "Images per second",
        f"Throughput over the batch, for {', '.join(by_streams)}.",
        batches,
        _from_zero("images/s", rows, "images_per_s"),
        [
            _line(name, chosen, "images_per_s", batches, hues[name])
            for name, chosen in by_streams.items()
        ],
    )
    waits = [
        line_chart(
            f"Milliseconds of a batch, {name}",
            f"Median, 90th and 99th percentile of the latency over the batch, with {name}.",
            batches,
            _from_zero("ms", chosen, "p99_ms"),
            [
                _line(share, known, f"{share}_ms", batches, hue)
                for share, hue in _SHARES.items()
                if (known := [row for row in chosen if text.is_known(row, share)])
            ],
        )
        for name, chosen in by_streams.items()
    ]
    cells = [
        [
            str(row["batch"]),
            str(row["streams"]),
            text.rate(row["images_per_s"]),
            *(text.wait(row, share) for share in text.PERCENTILES),
            str(row["runs"]),
        ]
        for row in rows
    ]
    return section(
        "The network alone",
        legend([*hues.items(), *_SHARES.items()]),
        grid(rates, *waits),
        table(("batch", "streams", "images/s", *text.PERCENTILES, "batches timed"), cells),
        note="Real images in place, compilation and a fifth of the time left out; as many batches "
        "in flight as streams, so that a latency has no queue in it.",
    )


_SHARES = {"p50": 2, "p90": 0, "p99": 1}  # percentiles of the latency: their hues
_FIRST_STREAMS_HUE = 3


def _whole(record: Record) -> Element:
    rows: Sequence[Row] = record["whole"]
    own = rows[0]["batch"]  # the bundle's: it was measured first
    threads = named_axis(
        "decoding threads", [str(each) for each in sorted({row["threads"] for row in rows})]
    )
    of_own = sorted((row for row in rows if row["batch"] == own), key=lambda row: row["threads"])
    line = Line(
        "pipeline",
        [_place(threads, row["threads"]) for row in of_own],
        [row["images_per_s"] for row in of_own],
        hue=2,
        dots=True,
        area=True,
        plain=True,
    )
    ceiling = record["ceiling_images_per_s"]
    top = 1.08 * max(ceiling, *(row["images_per_s"] for row in rows))
    chart = line_chart(
        f"Images per second, batch {own}",
        "Throughput of the whole pipeline over the number of decoding threads; dotted: the most "
        "that the stages allow.",
        threads,
        linear_axis("images/s", 0.0, top),
        [line],
        references=[((threads.low, ceiling), (threads.high, ceiling))],
        note=f"dotted: the ceiling, {text.rate(ceiling)} images/s",
    )
    cells = [
        [
            str(row["batch"]),
            str(row["threads"]),
            text.rate(row["images_per_s"]),
            *(text.wait(row, name) for name in text.PERCENTILES),
            str(row["rows"]),
        ]
        for row in rows
    ]
    columns = ("batch", "decoding threads", "images/s", *text.PERCENTILES, "rows timed")
    return section(
        "From files to a table",
        grid(chart),
        table(columns, cells),
        note="Files read, decoded, brought to the detector's input, scored and written, in steady "
        "state. What all stages together allow, if the cores did nothing else, is the ceiling. A "
        "row's latency begins when it is taken from the table: most of it is waiting its turn.",
    )


def _about(record: Record) -> Element:
    machine, work = record["machine"], record["work"]
    counted = work["multiply_adds"]
    if not isinstance(counted, str):
        counted = text.prefixed(counted)
    entries = {
        "engine": f"{record['engine']} ({record['detector']}, {record['precision']})",
        "backend": record["backend"],
        "machine": f"{machine['cores']} cores of {machine['cpu']}",
        "instructions": ", ".join(machine["features"]),
        "images": text.images_of(record),
        "multiply-adds per image": counted
        if isinstance(counted, str)
        else f"{counted / 1e9:.3g} G",
        "the machine's peak": work["peak"]["how"],
        "versions": ", ".join(f"{name} {each}" for name, each in record["versions"].items()),
        "commit": str(record["commit"]),
        "took": f"{record['took_seconds']:.0f} s",
    }
    return section("What was measured, on what", facts(entries))


def _line(name: str, rows: Sequence[Row], value: str, axis: Axis, hue: int) -> Line:
    """A series over batches."""
    x = [_place(axis, row["batch"]) for row in rows]
    return Line(name, x, [row[value] for row in rows], hue=hue, dots=True)


def _place(axis: Axis, number: int) -> float:
    """Where a number lies on an axis of names."""
    return next(place for place, name in axis.ticks if name == str(number))


def _from_zero(label: str, rows: Sequence[Row], value: str) -> Axis:
    return linear_axis(label, 0.0, 1.08 * max(row[value] for row in rows))


def _streams(count: int) -> str:
    return f"{count} stream" if count == 1 else f"{count} streams"
