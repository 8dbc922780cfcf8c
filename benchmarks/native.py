"""Native resolution: what the halos cost, and peak memory by image size.

    python -m trtdet.benchmarks.native BUNDLE [BUNDLE ...] [--megapixels 1 4 24] [--copies 2]

Each size is scored by `trtdet score` in a process of its own, `--copies` images of it beside each
other. Overhead is the pixels of all tiles over the pixels of the image.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import cv2

from trtdet.benchmarks.pipeline import time_command
from trtdet.benchmarks.record import describe_run
from trtdet.build.probes import make_probes
from trtdet.engine.bundle import open_bundle
from trtdet.engine.store import find_bundle
from trtdet.engine.tiles import Tiling, plan_tiles

# Height and width of 1, 4 and 24 Mpixel as cameras have them.
SIZES = {1: (866, 1155), 4: (1732, 2309), 24: (4000, 6000)}


def main() -> None:
    """Measure, print a Markdown table, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--megapixels", type=int, nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    print("| engine | Mpixel | tiles | overhead | seconds per image | peak memory |")
    print("|--|--|--|--|--|--|")
    for name in options.bundles:
        bundle = open_bundle(find_bundle(name))
        if bundle.tiling is None:
            raise SystemExit(f"{name} has a fixed input: give a bundle of native resolution")
        for megapixels in options.megapixels:
            row = {"engine": bundle.name, "tile": bundle.tiling.tile, "halo": bundle.tiling.halo,
                   "megapixels": megapixels, **_tiles(SIZES[megapixels], bundle.tiling),
                   **_run(name, SIZES[megapixels], options.copies)}  # fmt: skip
            rows.append(row)
            print(
                f"| {row['engine']} | {megapixels} | {row['tiles']} | {row['overhead']:.2f} "
                f"| {row['seconds']:.1f} | {row['peak_mib']:.0f} MiB |",
                flush=True,
            )
    if options.out:
        record = {**describe_run(), "copies": options.copies, "results": rows}
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _tiles(size: tuple[int, int], tiling: Tiling) -> dict[str, Any]:
    tiles = list(plan_tiles(*size, tiling))
    pixels = sum(
        (tile.rows.stop - tile.rows.start) * (tile.columns.stop - tile.columns.start)
        for tile in tiles
    )
    return {"tiles": len(tiles), "overhead": pixels / (size[0] * size[1])}


def _run(engine: str, size: tuple[int, int], copies: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.jpg"
        small = make_probes(size[0] // 8, size[1] // 8)[0]
        cv2.imwrite(str(image), cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC))
        table = Path(folder) / "input.csv"
        table.write_text("filename\n" + "image.jpg\n" * copies)
        seconds, peak_mib = time_command(table, engine)
    return {"seconds": seconds / copies, "peak_mib": peak_mib}


if __name__ == "__main__":
    main()
