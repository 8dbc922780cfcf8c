"""A network of two layers, made without ONNX, to learn whether a plan runs at all.

    image float32 [1, 16, 32, 32] ─▶ 3x3 convolution, ReLU ─▶ 1x1 convolution ─▶ mean: logit [1, 8]

In `fp16` everything between is half; in `int8` the convolutions' inputs and weights are in 8 bits,
by Q/DQ as a bundle's graph has them. numpy says what must come out.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from trtdet.engine.bundle import INPUT_NAME, OUTPUT_NAME
from trtdet.engine.tensorrt_library import Library, logger_of
from trtdet.errors import BackendError

Kind = Literal["fp32", "fp16", "int8"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Floats = NDArray[np.float32]

_CHANNELS, _HIDDEN, _OUTPUTS, _SIDE = 16, 32, 8, 32
_IMAGE_SHAPE = (1, _CHANNELS, _SIDE, _SIDE)

# Of the largest logit: what rounding to so many bits may cost here.
TOLERANCES: dict[Kind, float] = {"fp32": 1e-4, "fp16": 1e-2, "int8": 1e-1}

_IMAGE_SCALE, _HIDDEN_SCALE, _WEIGHT_SCALE = 4.0 / 127, 6.0 / 127, 0.5 / 127


def micro_image() -> Floats:
    """The input."""
    rng = np.random.default_rng(1)
    return np.clip(rng.standard_normal(_IMAGE_SHAPE), -4, 4).astype(np.float32)


def micro_logits() -> Floats:
    """What float32 gives."""
    first, second = _weights()
    padded = np.pad(micro_image(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    hidden = np.maximum(np.einsum("ncyxij,kcij->nkyx", windows, first), 0)
    out = np.einsum("nkyx,ok->noyx", hidden, second[:, :, 0, 0])
    return np.asarray(out.mean((2, 3)), np.float32)


def build_micro(
    library: Library, kind: Kind, capability: Any = None, hardware: Any = None
) -> tuple[bytes, str]:
    """A plan, and what the builder warned of.

    `capability` is a `ComputeCapability`, `hardware` a `HardwareCompatibilityLevel`; None leaves
    them alone. Raises BackendError with the builder's own words.
    """
    trt, log = library.trt, logger_of(library.trt)
    log.messages.clear()
    try:
        builder = trt.Builder(log)
    except (TypeError, RuntimeError) as error:  # pybind11: "factory function returned nullptr"
        raise BackendError(f"{library} does not start: {log.last() or error}") from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    kept = _fill(trt, network, kind)
    config = builder.create_builder_config()
    if hasattr(trt.BuilderFlag, "TF32"):  # as the engine's plans have it: float32 is float32
        config.clear_flag(trt.BuilderFlag.TF32)
    if capability is not None:
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(capability, 0):
            raise BackendError(f"{library} refuses {capability}: {log.last()}")
    if hardware is not None:
        config.hardware_compatibility_level = hardware
    plan = builder.build_serialized_network(network, config)
    del kept
    if plan is None:
        raise BackendError(f"{library} does not build it: {log.last() or 'no reason given'}")
    return bytes(plan), log.last()


def _fill(trt: Any, network: Any, kind: Kind) -> list[Any]:
    """The layers; what is returned has to outlive the build."""
    first, second = _weights()
    kept: list[Any] = [first, second]
    real = trt.DataType.HALF if kind == "fp16" else trt.DataType.FLOAT
    image = network.add_input(INPUT_NAME, trt.DataType.FLOAT, _IMAGE_SHAPE)

    def constant(values: Any) -> Any:
        kept.append(np.ascontiguousarray(values, np.float16 if kind == "fp16" else np.float32))
        return network.add_constant(values.shape, trt.Weights(kept[-1])).get_output(0)

    def rounded(tensor: Any, scale: float) -> Any:
        """Through 8 bits and back."""
        by = constant(np.array(scale, np.float32))
        bits = network.add_quantize(tensor, by, trt.DataType.INT8).get_output(0)
        return network.add_dequantize(bits, by, real).get_output(0)

    def convolution(tensor: Any, weights: Floats, scale: float, padding: int) -> Any:
        kernel = constant(weights)
        if kind == "int8":
            tensor, kernel = rounded(tensor, scale), rounded(kernel, _WEIGHT_SCALE)
        size = weights.shape[2:]
        layer = network.add_convolution_nd(tensor, len(weights), size, trt.Weights())
        layer.set_input(1, kernel)
        layer.padding_nd = (padding, padding)
        return layer.get_output(0)

    x = network.add_cast(image, real).get_output(0)
    x = convolution(x, first, _IMAGE_SCALE, 1)
    x = network.add_activation(x, trt.ActivationType.RELU).get_output(0)
    x = convolution(x, second, _HIDDEN_SCALE, 0)
    axes = (1 << 2) | (1 << 3)
    x = network.add_reduce(x, trt.ReduceOperation.AVG, axes, False).get_output(0)
    x = network.add_cast(x, trt.DataType.FLOAT).get_output(0)
    x.name = OUTPUT_NAME
    network.mark_output(x)
    return kept


def _weights() -> tuple[Floats, Floats]:
    """Of both convolutions."""
    rng = np.random.default_rng(2)
    first = np.clip(rng.standard_normal((_HIDDEN, _CHANNELS, 3, 3)) / 12, -0.5, 0.5)
    second = np.clip(rng.standard_normal((_OUTPUTS, _HIDDEN, 1, 1)) / 6, -0.5, 0.5)
    return first.astype(np.float32), second.astype(np.float32)
