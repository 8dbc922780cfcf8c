"""What bundles reach on labelled images: the README's tables, and a page for each set.

    python -m trtdet.benchmarks.accuracy --data cup/labels.csv --data images/labels.csv \\
        --out benchmarks/results starter ferretnet-s

It is `trtdet evaluate` for several sets at once: OUT gets `accuracy-SET.json` and
`accuracy-SET.html` for each, SET being the folder's name, and the Markdown is printed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trtdet.benchmarks.evaluate_bundles import ROBUSTNESS_IMAGES, Run, evaluate_bundles
from trtdet.benchmarks.evaluation import Report
from trtdet.benchmarks.evaluation_page import evaluation_page
from trtdet.benchmarks.evaluation_record import as_markdown, to_json
from trtdet.benchmarks.record import describe_run
from trtdet.calibration.layouts import read_images
from trtdet.engine.backends import choose_backend
from trtdet.engine.ensemble import open_any
from trtdet.engine.store import find_bundle


def main() -> None:
    """Measure, write the records and pages, print the Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--robustness-images", type=int, default=ROBUSTNESS_IMAGES)
    options = parser.parse_args()
    backend, _rejected = choose_backend("auto")
    run = Run(backend, robustness_images=options.robustness_images)
    facts = describe_run()
    reports: list[Report] = []
    for source in options.data:
        bundles = [open_any(find_bundle(name)) for name in options.bundles]
        report = evaluate_bundles(bundles, source, read_images(source), run)
        name = (source if source.is_dir() else source.resolve().parent).name
        record = json.dumps({**facts, **to_json(report)}, indent=1, ensure_ascii=False)
        (options.out / f"accuracy-{name}.json").write_text(record + "\n", encoding="utf-8")
        page = evaluation_page(report, facts)
        (options.out / f"accuracy-{name}.html").write_text(page, encoding="utf-8")
        reports.append(report)
    print(as_markdown(reports))


if __name__ == "__main__":
    main()
