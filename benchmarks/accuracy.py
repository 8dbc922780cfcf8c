"""What bundles reach on labelled images: the README's tables, and a page for each set.

    python -m trtdet.benchmarks.accuracy --data images/labels.csv --data cup/labels.csv \\
        --data cup/labels.csv:val --out benchmarks/results starter ferretnet-s

It is `trtdet evaluate` for several sets at once, FILE:SPLIT being one split of a file: OUT gets
`accuracy-SET.json` and `accuracy-SET.html` for each, and the Markdown is printed. SET is the name
of the folder, with that of the split.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from trtdet.benchmarks.evaluate_bundles import ROBUSTNESS_IMAGES, Run, evaluate_bundles
from trtdet.benchmarks.evaluation_page import evaluation_page
from trtdet.benchmarks.evaluation_record import as_markdown, json_text
from trtdet.benchmarks.evaluation_report import Report
from trtdet.benchmarks.record import describe_run
from trtdet.calibration.layouts import read_images
from trtdet.engine.backends import choose_backend
from trtdet.engine.ensemble import open_any
from trtdet.engine.store import find_bundle


def main() -> None:
    """Measure, write the records and pages, print the Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--data", action="append", required=True, metavar="FILE[:SPLIT]")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--robustness-images", type=int, default=ROBUSTNESS_IMAGES)
    options = parser.parse_args()
    backend, _rejected = choose_backend("auto")
    run = Run(backend, robustness_images=options.robustness_images)
    facts = describe_run()
    reports: list[Report] = []
    bundles = [open_any(find_bundle(name)) for name in options.bundles]
    for data in options.data:
        file, _colon, split = data.partition(":")
        source = Path(file)
        images = read_images(source, split or None)
        report = evaluate_bundles(bundles, source, images, run)
        folder = source if source.is_dir() else source.resolve().parent
        name = "-".join(filter(None, (folder.name, split)))
        record = json_text(report, facts) + "\n"
        (options.out / f"accuracy-{name}.json").write_text(record, encoding="utf-8")
        page = evaluation_page(report, facts)
        (options.out / f"accuracy-{name}.html").write_text(page, encoding="utf-8")
        reports.append(report)
    print(as_markdown(reports))


if __name__ == "__main__":
    main()
