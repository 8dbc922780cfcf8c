"""What this machine multiplies at most, through OpenVINO: a large product and a convolution.

Both run in as many streams as there are cores, one thread each, as a session does. A share of this
peak says how much of what the same library reaches on the easiest of shapes a network reaches; the
data sheet's number is further away.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from trtdet.benchmarks.bench_network import Setting, run_session, summarise
from trtdet.engine.backends import OnDone
from trtdet.engine.machine import core_count

_SIDE = 1024  # of the product's matrices
_CHANNELS, _PIXELS = 256, 56  # of the convolution, 3 x 3


@dataclass(frozen=True)
class Peak:
    """Multiply-adds per second, all cores together."""

    product: float
    convolution: float

    @property
    def best(self) -> float:
        """The larger one."""
        return max(self.product, self.convolution)


def measure_peak(precision: str, seconds: float) -> Peak:
    """In float32, or in 8 bits for `precision` "int8"."""
    eight = precision == "int8"
    product = _rate(_product(eight), _SIDE**3, seconds / 2)
    work = _PIXELS**2 * _CHANNELS**2 * 9
    return Peak(product, _rate(_convolution(eight), work, seconds / 2))


def _product(eight: bool) -> Any:
    from openvino import opset13

    left = opset13.parameter([_SIDE, _SIDE], np.float32, name="left")
    right = opset13.constant(_noise(_SIDE, _SIDE))
    return _model(
        opset13.matmul(_in_8_bits(left, eight), _in_8_bits(right, eight), False, True), left
    )


def _convolution(eight: bool) -> Any:
    from openvino import opset13

    left = opset13.parameter([1, _CHANNELS, _PIXELS, _PIXELS], np.float32, name="left")
    right = opset13.constant(_noise(_CHANNELS, _CHANNELS, 3, 3))
    made = opset13.convolution(
        _in_8_bits(left, eight), _in_8_bits(right, eight), [1, 1], [1, 1], [1, 1], [1, 1]
    )
    return _model(made, left)


def _in_8_bits(node: Any, eight: bool) -> Any:
    """As Q/DQ pairs do it: OpenVINO folds these into its 8-bit kernels."""
    from openvino import opset13

    if not eight:
        return node
    low, high = opset13.constant(np.float32(-1.28)), opset13.constant(np.float32(1.27))
    return opset13.fake_quantize(node, low, high, low, high, 256)


def _model(output: Any, left: Any) -> Any:
    from trtdet.engine.import_openvino import ov

    return ov.Model([output], [left])


def _rate(model: Any, work: int, seconds: float) -> float:
    """Multiply-adds per second in steady state, in as many streams as cores."""
    with closing(_Requests(model, core_count())) as requests:
        run_session(requests, seconds / 5, least=1)
        ends = run_session(requests, seconds)
    return work * summarise(ends, Setting(1, requests.slots)).images_per_s


class _Requests:
    """A compiled model with a request for each stream."""

    def __init__(self, model: Any, streams: int):
        from trtdet.engine.import_openvino import ov

        self.slots = streams
        self.on_done: OnDone = lambda _slot: None
        properties = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
        }
        compiled = ov.Core().compile_model(model, "CPU", properties)
        self._requests = [compiled.create_infer_request() for _ in range(streams)]
        for slot, request in enumerate(self._requests):
            tensor = request.get_input_tensor()
            tensor.data[:] = _noise(*tensor.shape)
            request.set_callback(lambda slot: self.on_done(slot), slot)

    def start(self, slot: int) -> None:
        """Run that request."""
        self._requests[slot].start_async()

    def close(self) -> None:
        """Let go of the model: a request holds its callback, and that holds this."""
        self._requests.clear()

    def check(self) -> None:
        """Raise what a request raised."""
        for request in self._requests:
            request.wait()


def _noise(*shape: int) -> Any:
    return np.random.default_rng(3).uniform(-1, 1, shape).astype(np.float32)
