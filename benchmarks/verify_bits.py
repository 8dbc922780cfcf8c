"""The same bits, however images are run: ways to run them, and where their scores differ."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trtdet.benchmarks.certificate import Check
from trtdet.calibration.scoring import score_each
from trtdet.engine.backends import TENSORRT, BackendStatus
from trtdet.engine.bundle import Bundle
from trtdet.engine.engine import Engine, open_engine
from trtdet.engine.ensemble import Ensemble, members_of
from trtdet.engine.machine import core_count
from trtdet.engine.tensorrt import GpuOptions
from trtdet.errors import BackendError, DriftError, InputError

LISTED = 5  # rows that a check names

_ODD_BATCH = 7  # divides few numbers of images, so that the last batch is padded

Found = list[bytes | None]  # the logits' bytes of each image; None: no score
Results = dict[str, Found | str]  # of each way; in words: the engine did not open so


@dataclass(frozen=True)
class Way:
    """One way to run the same images."""

    name: str
    threads: int  # that decode
    shuffled: int = 0  # seed of the order; 0: as they are listed


# Ways that differ in what is around the session; others need a session of their own.
SAME_SESSION = (
    Way("as they are listed", core_count()),
    Way("shuffled, 1 decoding thread", 1, shuffled=1),
)


def other_sessions(
    backend: BackendStatus,
    bundle: Bundle | Ensemble,
    pictures: Sequence[Path],
    gpu: GpuOptions | None,
) -> Results:
    """The images once more with other batches, slots and streams."""
    settings: list[tuple[str, dict[str, Any]]]
    if backend.name == TENSORRT:
        other = replace(gpu or GpuOptions(), slots=1, streams=1, graph=False)
        settings = [("1 slot, 1 stream, no graph", {"gpu": other})]
    elif any(member.tiling for member in members_of(bundle)):
        settings = [("1 slot, 1 stream", {"slots": 1, "streams": 1})]
    else:
        settings = [
            ("batches of 1, 1 slot, 1 stream", {"batch": 1, "slots": 1, "streams": 1}),
            (f"batches of {_ODD_BATCH}", {"batch": _ODD_BATCH}),
        ]
    results: Results = {}
    for number, (name, options) in enumerate(settings):
        threads = 4 * core_count()
        way = Way(f"{name}, {threads} decoding threads, shuffled", threads, shuffled=2 + number)
        try:
            with open_engine(backend, bundle, **{"gpu": gpu, **options}) as engine:
                results.update(run_ways(engine, pictures, (way,)))
        except (DriftError, BackendError) as error:
            results[way.name] = str(error)
    return results


def run_ways(engine: Engine, pictures: Sequence[Path], ways: Sequence[Way]) -> dict[str, Found]:
    """Of each way, the logits' bytes per image in the order of the list; None: no score.

    Raises InputError where no image has one.
    """
    results: dict[str, Found] = {}
    for way in ways:
        order = list(range(len(pictures)))
        if way.shuffled:
            random.Random(way.shuffled).shuffle(order)
        paths = [pictures[each] for each in order]
        logits, reasons = score_each(engine, paths, threads=way.threads)
        found: Found = [None] * len(pictures)
        for each, scores in zip(order, logits, strict=True):
            found[each] = None if np.isnan(scores).any() else scores.tobytes()
        if found.count(None) == len(found):
            file, reason = next(iter(reasons.items()), ("", "they are none"))
            raise InputError(
                f"none of {len(pictures)} images can be scored, for instance {file}: {reason}"
            )
        results[way.name] = found
    return results


def check_bits(pictures: Sequence[Path], same: dict[str, Found], others: Results) -> Check:
    """Each way's logits, as bytes per image, against the first of `same`, of one session."""
    (first, expected), *rest = same.items()
    others = {**dict(rest), **others}
    scored = sum(each is not None for each in expected)
    ways = [first, *others]
    values: dict[str, Any] = {"images": len(expected), "scored": scored, "ways": ways}
    differing: dict[str, list[str]] = {}
    wrong = []
    for name, found in others.items():
        if isinstance(found, str):
            wrong.append(f"{name}: {found}")
            continue
        rows = [index for index, each in enumerate(found) if each != expected[index]]
        if rows:
            differing[name] = [str(pictures[each]) for each in rows]
            named = ", ".join(_named(pictures, rows, expected, found))
            wrong.append(f"{name}: {len(rows)} differ, {named}")
    values["differing"] = differing
    same_bits = f"{scored} images {'; '.join(ways)}: the same bits"
    return Check("same bits", not wrong, "; ".join(wrong) or same_bits, values)


def _named(
    pictures: Sequence[Path],
    rows: Sequence[int],
    expected: Sequence[bytes | None],
    found: Sequence[bytes | None],
) -> list[str]:
    """The first of the rows that differ, with both of their logits."""
    return [
        f"{pictures[each]} ({_shown(expected[each])}, {_shown(found[each])})"
        for each in rows[:LISTED]
    ]


def _shown(logits: bytes | None) -> str:
    if logits is None:
        return "no score"
    return " ".join(str(each) for each in np.frombuffer(logits, np.float32))
