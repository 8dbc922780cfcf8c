"""Everything that only a GPU can settle, in one run that keeps what it has found.

    python -m trtdet.benchmarks.gpu --out DIR [--minutes N] [--only SECTION ...]
        [--bundles DIR_OR_NAME ...] [--build MODEL:PRECISION ...]
        [--images FOLDER] [--calibration SET]

DIR/gpu.json has every number, DIR/gpu.md the same as a page; both are written after every row.
DIR/work is what the run made for itself (images, bundles, plans) and can go afterwards; a later run
with the same DIR takes the bundles from there, so that `--only bundles` can be run beforehand, also
on a machine without a GPU. DIR/gpu.log is what libraries said.

--minutes are shared among the sections. A row that is being measured is not cut short, so a run can
take a minute longer; what there was no time for says so, and `--only` measures it in another run.

Nothing is needed but the package: what is missing costs its rows, each with the reason. Exit codes:
0 the run came to its end, whatever could be measured; 1 something that was measured is not what it
has to be (other bytes than Pillow's, logits beyond a bundle's tolerance); 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from trtdet.benchmarks import (
    gpu_bundles,
    gpu_driver,
    gpu_engines,
    gpu_kernel_speed,
    gpu_kernels,
    gpu_machine,
    gpu_plans,
    gpu_sanitizer,
    gpu_throughput,
    gpu_torch,
)
from trtdet.benchmarks.gpu_process import run_sections
from trtdet.benchmarks.gpu_record import PAGE, Record, as_page
from trtdet.benchmarks.gpu_section import Request, Section, run_section
from trtdet.engine.store import find_bundle
from trtdet.errors import TrtdetError

SECTIONS = (
    Section("machine", "The machine", 1, gpu_machine.run),
    Section("plans", "Which plans load and run", 4, gpu_plans.run),
    Section("pycuda", "pycuda and CUDA graphs", 1, gpu_driver.run),
    Section("kernels", "The kernels against Pillow", 4, gpu_kernels.run),
    Section("sanitizer", "The kernels under compute-sanitizer", 4, gpu_sanitizer.run),
    Section("kernel-speed", "The kernels' speed", 2, gpu_kernel_speed.run),
    Section("torch", "PyTorch on the same GPU", 12, gpu_torch.run),
    Section("bundles", "The bundles", 14, gpu_bundles.run),
    Section("engines", "The engines' logits", 8, gpu_engines.run),
    Section("throughput", "Throughput", 20, gpu_throughput.run),
)

_ENDED, _WRONG, _USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections, each in a process of its own, and print the page."""
    options = _parse(arguments)
    request = Request(
        options.out.absolute(),
        tuple(options.bundles),
        tuple(options.build),
        options.images and options.images.absolute(),
        options.calibration and options.calibration.absolute(),
        bool(options.only or options.build) if options.section is None else options.asked,
    )
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
    if options.section is not None:
        # The user's store stays as it is: what is compiled here is for this run alone.
        os.environ["TRTDET_HOME"] = str(request.work / "home")
        section = next(each for each in SECTIONS if each.name == options.section)
        run_section(section, request, options.seconds, expendable=True)
        return _ENDED
    try:
        passed = _resolve(request)
    except TrtdetError as error:
        print(error, file=sys.stderr)
        return _USAGE
    chosen = [each for each in SECTIONS if not options.only or each.name in options.only]
    try:
        record = Record(request.out)
    except OSError as error:
        print(f"{request.out} cannot be written: {error}", file=sys.stderr)
        return _USAGE
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    record.about = {"started": started, "arguments": list(arguments or sys.argv[1:])}
    record.about |= gpu_machine.describe()
    record.save()
    command = [sys.executable, "-X", "faulthandler", "-m", "trtdet.benchmarks.gpu"]
    command += ["--out", str(request.out), *passed]
    run_sections(chosen, request.out, command, 60.0 * options.minutes)
    record = Record(request.out)
    print(as_page(record))
    print(f"{request.out / PAGE}", file=sys.stderr)
    return _WRONG if record.wrong else _ENDED


def _resolve(request: Request) -> list[str]:
    """The arguments of every section: names in the store become folders. Raises TrtdetError."""
    bundles = [str(find_bundle(each).absolute()) for each in request.bundles]
    builds = gpu_bundles.check_builds(request.builds)
    if not bundles and not builds:
        builds = gpu_bundles.DEFAULT_BUILDS
    passed = ["--bundles", *bundles, "--build", *builds, *["--asked"] * request.asked]
    for name, value in (("--images", request.images), ("--calibration", request.calibration)):
        if value is not None:
            passed += [name, str(value)]
    return passed


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m trtdet.benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [section.name for section in SECTIONS]
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--bundles", nargs="*", default=[], metavar="DIR_OR_NAME")
    parser.add_argument("--build", nargs="*", default=[], metavar="MODEL:PRECISION")
    parser.add_argument("--images", type=_folder, metavar="FOLDER")
    parser.add_argument("--calibration", type=Path, metavar="SET")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument(
        "--only", nargs="*", choices=names, metavar="SECTION", help=", ".join(names)
    )
    # What a section's own process is started with.
    parser.add_argument("--section", choices=names, help=argparse.SUPPRESS)
    parser.add_argument("--asked", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return path


if __name__ == "__main__":
    sys.exit(main())
