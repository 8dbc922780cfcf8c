"""How fast a newcomer sees something, and what the install weighs.

    python -m trtdet.benchmarks.startup image.jpg BUNDLE [--out results.json]

Wall seconds of `trtdet --help`, and of a whole `trtdet score` of one image (interpreter, imports,
compilation, the probes, the score), each as a new process, medians of five
after the files were read once; and the size on disk
of the distributions that the base install brings.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from statistics import median

from trtdet.benchmarks.record import describe_run

RUNS = 5


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("image", type=Path)
    parser.add_argument("bundle")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "one.csv"
        table.write_text(f'filename\n"{options.image.absolute()}"\n', encoding="utf-8")
        scores = str(Path(folder) / "scores.csv")
        help_s = time_trtdet("--help")
        first_score_s = time_trtdet("score", "--engine", options.bundle, str(table), scores)
    install = {name: round(size, 1) for name, size in install_mib().items()}
    print(f"trtdet --help       {help_s:.2f} s")
    print(f"first score         {first_score_s:.2f} s ({Path(options.bundle).name})")
    print(f"base install        {sum(install.values()):.0f} MiB: {install}")
    if options.out:
        results = {"help_s": help_s, "first_score_s": first_score_s, "install_mib": install}
        record = {**describe_run(), "results": results}
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def time_trtdet(*arguments: str) -> float:
    """Median wall seconds of a `trtdet` command."""
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        command = [sys.executable, "-m", "trtdet", *arguments]
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def install_mib() -> dict[str, float]:
    """MiB on disk of each distribution that `pip install trtdet` brings, largest first."""
    wanted, found = ["trtdet"], dict[str, Distribution]()
    while wanted:
        name = wanted.pop().lower()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # for another platform
            continue
        needed = [line for line in found[name].requires or [] if "extra ==" not in line]
        wanted += [re.split(r"[^\w.-]", line)[0] for line in needed]
    sizes = {name: _size_mib(each) for name, each in found.items()}
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _size_mib(found: Distribution) -> float:
    paths = (Path(str(file.locate())) for file in found.files or [])
    return sum(path.stat().st_size for path in paths if path.is_file()) / 2**20


if __name__ == "__main__":
    main()
