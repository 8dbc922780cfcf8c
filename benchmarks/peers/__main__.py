"""trtdet beside its peers: the same weights, images and cores, in alternating rounds.

    python -m trtdet.benchmarks.peers --npr FILE --rine HEAD --clip TOWER --nodown FILE
        --ferretnet FILE [--int8 NET=BUNDLE ...] [--recipe NET ...] [--images FOLDER_OR_CSV]
        [--rounds 3] [--seconds 10] [--work DIR] [--out benchmarks/results/peers.json]

From files to scores: a DataLoader script as papers ship it, and trtdet. The network alone: PyTorch
eager, torch.compile, ONNX Runtime, OpenVINO's benchmark_app, and trtdet's session. Every contender
runs in a process of its own, one after the other, round after round; medians count. All of them
are run at each of a network's batches.

FP32 bundles are built from the weights, INT8 bundles of the same weights are given. `--recipe`
names networks whose weights are generated, which the record says: speed does not depend on values.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from trtdet.benchmarks.peer_tables import peers, peers_network
from trtdet.benchmarks.peers.contender import Task
from trtdet.benchmarks.peers.nets import NETS
from trtdet.benchmarks.pictures import given_pictures, photographs
from trtdet.benchmarks.record import describe_run
from trtdet.build.assemble import BuildRequest, build_bundle
from trtdet.engine.bundle import Bundle, open_bundle
from trtdet.engine.digest import sha256_file
from trtdet.engine.machine import core_count
from trtdet.engine.store import RECORD
from trtdet.errors import TrtdetError

_TIMEOUT_S = 900.0  # of one contender: torch.compile takes its time

# Which run a bundle, and which of them in 8 bits, too.
_FILES = ("paper script", "trtdet")
_NETWORK = ("eager", "torch.compile", "ONNX Runtime", "benchmark_app", "trtdet network")
_IN_8_BITS = ("trtdet", "ONNX Runtime", "benchmark_app", "trtdet network")


@dataclass(frozen=True)
class Entry:
    """One row to measure."""

    kind: str  # "files" or "network"
    precision: str
    task: Task

    @property
    def name(self) -> str:
        """For the log."""
        task = self.task
        return f"{task.net}: {task.contender}, {self.precision}, batch {task.batch}"


def main() -> int:
    """Build, measure, print the tables, and write the JSON after every round."""
    options = _parse()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trtdet-")))
        work = options.work or scratch
        work.mkdir(parents=True, exist_ok=True)
        if options.images:
            images = given_pictures(options.images, options.count)
        else:
            images = photographs(scratch, options.count)
        try:
            entries = list(_entries(options, work, [str(each.absolute()) for each in images]))
        except TrtdetError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        rates: dict[int, list[float]] = {place: [] for place in range(len(entries))}
        reasons: dict[int, str] = {}
        for number in range(options.rounds):
            for place, entry in enumerate(entries):
                if place in reasons:
                    continue
                found = _run(entry.task)
                if isinstance(found, str):
                    reasons[place] = found
                else:
                    rates[place].append(found)
                shown = found if isinstance(found, str) else f"{found:.3g} images/s"
                print(f"{number + 1}/{options.rounds}  {entry.name}: {shown}", file=sys.stderr)
            record = _record(options, entries, rates, reasons, number + 1, len(images))
            if options.out:
                text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
                options.out.write_text(text, encoding="utf-8")
    print(peers({"peers": record}), "", peers_network({"peers": record}), sep="\n")
    return 0


def _entries(options: argparse.Namespace, work: Path, images: list[str]) -> Iterator[Entry]:
    """Every contender of every network. Raises TrtdetError where a bundle cannot be had."""
    for name, net in NETS.items():
        weights: Path | None = getattr(options, name)
        if weights is None:
            continue
        backbone = options.clip if name == "rine" else None
        exact = _exact_bundle(name, weights, backbone, work / f"{name}-fp32")
        bundles = {"fp32": exact}
        if name in options.int8:
            bundles["int8"] = _same_weights(open_bundle(options.int8[name]), exact)
        task = Task(
            "",
            name,
            str(weights.absolute()),
            str(backbone.absolute()) if backbone else None,
            "",
            tuple(images),
            1,
            options.threads,
            options.workers,
            options.seconds,
        )
        for kind, contenders in (("files", _FILES), ("network", _NETWORK)):
            for contender in contenders:
                for precision, bundle in bundles.items():
                    if precision == "int8" and contender not in _IN_8_BITS:
                        continue
                    for batch in net.batches:
                        made = replace(
                            task,
                            contender=contender,
                            bundle=str(bundle.path.absolute()),
                            batch=batch,
                        )
                        yield Entry(kind, precision, made)


def _exact_bundle(name: str, weights: Path, backbone: Path | None, out: Path) -> Bundle:
    """The FP32 bundle in the working folder, from an earlier run or built now."""
    net = NETS[name]
    if (out / RECORD).is_file():
        bundle = open_bundle(out)
        files = (weights, backbone)
        if _made_of(bundle) == tuple(each and sha256_file(each) for each in files):
            return bundle
    print(f"{name}: building", file=sys.stderr)
    request = BuildRequest(
        net.model, (weights,), net.variant, backbone, geometry=net.geometry, name=name, out=out
    )
    return build_bundle(request, on_stage=lambda line: print(f"  {line}", file=sys.stderr))


def _made_of(bundle: Bundle) -> tuple[str | None, str | None]:
    """The hashes of the weights, and of the tower's."""
    files = bundle.checkpoint
    return files.get("sha256"), files.get("backbone", {}).get("sha256")


def _same_weights(given: Bundle, exact: Bundle) -> Bundle:
    if _made_of(given) != _made_of(exact):
        raise SystemExit(f"{given.path} was not built from {exact.checkpoint.get('file')}")
    if given.geometry != exact.geometry:
        raise SystemExit(f"{given.path} has another input ({given.geometry}) than {exact.geometry}")
    return given


def _run(task: Task) -> float | str:
    """Images per second, or why there are none."""
    command = [sys.executable, "-m", "trtdet.benchmarks.peers.contender", task.to_json()]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return f"not done after {_TIMEOUT_S:.0f} s"
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return float(json.loads(done.stdout.splitlines()[-1])["images_per_s"])


def _record(
    options: argparse.Namespace,
    entries: list[Entry],
    rates: dict[int, list[float]],
    reasons: dict[int, str],
    rounds: int,
    images: int,
) -> dict[str, Any]:
    about = describe_run()
    with suppress(PackageNotFoundError):  # its rows say so
        about["versions"]["onnxruntime"] = version("onnxruntime")
    results = []
    for place, entry in enumerate(entries):
        row = {
            "net": entry.task.net, "kind": entry.kind, "contender": entry.task.contender,
            "precision": entry.precision, "batch": entry.task.batch,
        }  # fmt: skip
        if rates[place]:
            row |= {"images_per_s": median(rates[place]), "rounds": rates[place]}
        results.append(row | ({"reason": reasons[place]} if place in reasons else {}))
    weights = {
        name: {"file": path.name, "generated": name in options.recipe}
        for name in NETS
        if (path := getattr(options, name)) is not None
    }
    return {
        **about, "rounds": rounds, "seconds": options.seconds, "threads": options.threads,
        "workers": options.workers, "images": images, "drawn": options.images is None,
        "weights": weights, "results": results,
    }  # fmt: skip


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m trtdet.benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("--rine", "--npr", "--nodown", "--ferretnet"):
        title = NETS[name.removeprefix("--")].title
        parser.add_argument(name, type=Path, metavar="FILE", help=f"weights of {title}")
    parser.add_argument("--clip", type=Path, metavar="FILE", help="CLIP's tower, for RINE")
    parser.add_argument("--int8", type=_pair, action="append", default=[], metavar="NET=BUNDLE")
    parser.add_argument("--recipe", nargs="*", choices=NETS, default=[], metavar="NET")
    parser.add_argument("--images", type=Path, metavar="FOLDER_OR_CSV")
    parser.add_argument("--count", type=int, default=512, help="images, at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each contender")
    parser.add_argument("--threads", type=int, default=core_count(), help="cores for everyone")
    parser.add_argument("--workers", type=int, default=2, help="of the paper script's DataLoader")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keeps the FP32 bundles")
    parser.add_argument("--out", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.int8 = dict(options.int8)
    if options.rine and not options.clip:
        parser.error("--rine needs --clip")
    return options


def _pair(text: str) -> tuple[str, Path]:
    name, found, path = text.partition("=")
    if not found or name not in NETS:
        raise argparse.ArgumentTypeError(f"{text!r} is not NET=BUNDLE, NET being of {list(NETS)}")
    return name, Path(path)


if __name__ == "__main__":
    sys.exit(main())
