"""Run a float graph on calibration images, and look at what its tensors hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trtdet.calibration.histograms import Activations
from trtdet.calibration.window import middle_of
from trtdet.engine.bundle import CARRY, COLUMNS, INPUT_NAME, ROWS
from trtdet.engine.geometry import Pixels
from trtdet.engine.import_openvino import ov
from trtdet.engine.machine import core_count
from trtdet.engine.tiles import Tiling
from trtdet.errors import BackendError

Feed = dict[str, NDArray[np.generic]]
Tensors = dict[str, NDArray[np.float32]]
OnImage = Callable[[int], None]


class Tap:
    """A compiled graph whose inner tensors can be seen.

    `tensors` come back whole, of `others` only the largest magnitude. Raises BackendError for a
    graph that does not compile, and for a tensor that it does not have.
    """

    def __init__(self, graph: Path, tensors: Collection[str], others: Collection[str] = ()):
        self._tensors, self._others = list(tensors), list(others)
        try:
            core = ov.Core()
            whole = core.read_model(graph)
            outputs = (output for node in whole.get_ops() for output in node.outputs())
            found = {name: output for output in outputs for name in output.get_names()}
            if missing := [name for name in (*tensors, *others) if name not in found]:
                raise BackendError(f"OpenVINO does not show {', '.join(missing)} of {graph}")
            results = [
                *(ov.opset13.result(found[name]) for name in self._tensors),
                *(ov.opset13.result(_largest(found[name])) for name in self._others),
            ]
            tapped = ov.Model(results, whole.get_parameters(), "tap")
            self._compiled = core.compile_model(
                tapped,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": "f32",
                    "NUM_STREAMS": 1,
                    "INFERENCE_NUM_THREADS": core_count(),
                },
            )
        except (RuntimeError, MemoryError) as error:
            raise BackendError(f"OpenVINO cannot compile {graph}: {error}") from error

    def look(self, feed: Feed) -> tuple[Tensors, dict[str, float]]:
        """The tensors, and the largest magnitudes of the others, for one image's inputs.

        The tensors are valid until the next look.
        """
        request = self._compiled(feed, share_inputs=True, share_outputs=True)
        outputs = [request[each] for each in self._compiled.outputs]
        count = len(self._tensors)
        largest = [float(each) for each in outputs[count:]]
        return (
            dict(zip(self._tensors, outputs[:count], strict=True)),
            dict(zip(self._others, largest, strict=True)),
        )


def collect(
    tap: Tap,
    images: Iterable[Pixels],
    tiling: Tiling | None,
    seen: Activations,
    on_image: OnImage,
) -> None:
    """Add what `tap` sees of each image [views, H, W, 3] to `seen`; `on_image` hears the count.

    Raises BackendError where a tensor of the float network is infinite or no number.
    """
    for image in images:
        feed: Feed = {INPUT_NAME: image} if tiling is None else _window(image, tiling)
        try:
            seen.add(*tap.look(feed))
        except ValueError as error:
            raise BackendError(f"the float network itself fails on an image: {error}") from error
        on_image(seen.images)


def _window(image: Pixels, tiling: Tiling) -> Feed:
    """The middle of an image as a tile of its own, with nothing carried."""
    pixels = middle_of(image, tiling.stride)
    cells = [-(-size // tiling.stride) for size in pixels.shape[1:3]]
    return {
        INPUT_NAME: pixels,
        ROWS: np.full(cells[0], 1.0 / cells[0], np.float32),
        COLUMNS: np.full(cells[1], 1.0 / cells[1], np.float32),
        CARRY: np.zeros((1, tiling.channels), np.float32),
    }


def _largest(output: ov.Output) -> ov.Output:
    axes = np.arange(len(output.get_partial_shape()))
    return ov.opset13.reduce_max(ov.opset13.abs(output), axes, keep_dims=False).output(0)
