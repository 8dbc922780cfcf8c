"""How many multiply-adds a network takes for an image."""

from __future__ import annotations

from trtdet.benchmarks.gpu_section import MissingError
from trtdet.engine.bundle import CARRY, COLUMNS, INPUT_NAME, ROWS, Bundle

_SIDE = 512  # pixels: a tile whose work stands for that of any image of native resolution


def work_of(bundle: Bundle, megapixels: float = 1.0) -> int:
    """For one image, all its views; at native resolution for one of that many megapixels.

    What tiles overlap is not counted. Raises MissingError without onnx.
    """
    try:
        import onnx

        from trtdet.calibration.multiply_adds import multiply_adds
    except ImportError as error:
        raise MissingError(f"multiply-adds are counted in the graph: {error}") from error
    graph, tiling = onnx.load(bundle.graph), bundle.tiling
    if tiling is None:
        shape = (bundle.geometry.views, *bundle.geometry.fixed_size, 3)
        return multiply_adds(graph, {INPUT_NAME: shape})
    cells = -(-_SIDE // tiling.stride)
    shapes = {INPUT_NAME: (1, _SIDE, _SIDE, 3), ROWS: (cells,), COLUMNS: (cells,)}
    counted = multiply_adds(graph, {**shapes, CARRY: (1, tiling.channels)})
    return round(counted * 1e6 * megapixels / _SIDE**2)
