"""What an engine can leave out where time is short, in a stated order, and the engine without it.

First the views of a member that looks at an image more than once: it keeps the central one. Then
the members of an ensemble, the dearest first, until one is left. Rows are never left out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal

from trtdet.engine.backends import infer
from trtdet.engine.bundle import Bundle, load_probes
from trtdet.engine.engine import Engine, Lane
from trtdet.engine.geometry import Geometry
from trtdet.engine.steps import CenterCrop, TenCrop


@dataclass(frozen=True)
class Reduction:
    """One thing that can be left out."""

    what: Literal["views", "member"]
    bundle: str
    says: str  # for instance "9 of 10 views of rine"


def reductions(engine: Engine) -> list[Reduction]:
    """All of them, in their order; each is for the engine that the one before it left.

    What the members of an ensemble cost is measured: a batch through each.
    """
    if engine.opener is None:
        return []
    dearest = list(engine.lanes)
    if len(dearest) > 1:
        dearest.sort(key=_seconds, reverse=True)
    bundles = [lane.bundle for lane in dearest]
    looks = [(each.geometry.views, each.name) for each in bundles if each.geometry.views > 1]
    return [
        *(
            Reduction("views", name, f"{count - 1} of {count} views of {name}")
            for count, name in looks
        ),
        *(Reduction("member", each.name, f"member {each.name}") for each in bundles[:-1]),
    ]


def reduce_engine(engine: Engine, reduction: Reduction) -> Engine:
    """The engine without that. Nothing may run on `engine`, which is not to be used again.

    Raises what opening a bundle raises: fewer views are another input.
    """
    if engine.opener is None:
        raise TypeError("lanes that were opened by hand are not opened anew")
    index, lane = next(
        (index, lane)
        for index, lane in enumerate(engine.lanes)
        if lane.bundle.name == reduction.bundle
    )
    engine.opener.close(lane)
    before, after = engine.lanes[:index], engine.lanes[index + 1 :]
    if reduction.what == "views":
        alone = len(engine.lanes) == 1
        once = engine.opener.open(*_looking_once(lane, engine.batch, alone=alone))
        return replace(engine, lanes=(*before, once, *after))
    vote = engine.vote
    if vote is not None:
        vote = replace(vote, weights=vote.weights[:index] + vote.weights[index + 1 :])
    return replace(engine, lanes=(*before, *after), vote=vote)


def _seconds(lane: Lane) -> float:
    """What a batch takes when nothing else runs."""
    image = load_probes(lane.bundle.path).images[0]
    start = time.perf_counter()
    infer(lane.session, [image[None]])
    return time.perf_counter() - start


def _looking_once(lane: Lane, batch: int, *, alone: bool) -> tuple[Bundle, int]:
    """The lane's bundle with the central view alone, and the batch for it.

    Alone in its engine, it takes as many images as it had views: the network's input keeps its
    shape, and a compiled plan is still the right one.
    """
    *before, last = lane.bundle.geometry.steps
    if not isinstance(last, TenCrop):
        raise TypeError(f"{last} gives several views, and which is the central one is not known")
    geometry = Geometry.of(*before, CenterCrop(last.height, last.width))
    views = lane.bundle.geometry.views if alone else 1
    return replace(lane.bundle, geometry=geometry), batch * views
