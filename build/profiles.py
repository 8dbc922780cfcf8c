"""The shapes that a plan is compiled for: a batch, a range of batches, or tiles of any size.

TensorRT wants three shapes of every free input: the least, the best (kernels are chosen by timing
that one) and the largest. At native resolution no pixel is ever padded: the tiles of an image are
as large as they come out, so the plan takes every height and width up to the tile's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trtdet.build.plan_settings import Batch
from trtdet.engine.plan_key import PROFILE, SIDES
from trtdet.errors import InputError

if TYPE_CHECKING:
    from trtdet.engine.bundle import Bundle

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # the least, the best, the most

# As in `trtdet.engine.bundle`, which cannot be imported here: it needs OpenCV.
INPUT_NAME, OUTPUT_NAME = "image", "logit"
ROWS, COLUMNS, CARRY, POOLED = "rows", "columns", "carry", "pooled"


@dataclass(frozen=True)
class NativeSize:
    """The tiles that a fully convolutional network is given."""

    least: int  # pixels, the shortest side that an image can have: one cell of the feature map
    tile: int  # pixels, the longest side
    stride: int  # pixels from one cell to the next
    channels: int  # of the features that are carried from tile to tile

    @staticmethod
    def of(bundle: Bundle) -> NativeSize | None:
        """A bundle's; None where its images have one size."""
        if (tiling := bundle.tiling) is None:
            return None
        trims = [step.multiple for step in bundle.geometry.steps if step.kind == "trim"]
        return NativeSize(max(trims, default=1), tiling.tile, tiling.stride, tiling.channels)

    def shapes(self) -> dict[str, Shapes]:
        """Of every input."""
        sides = (self.least, self.tile, self.tile)
        least, best, most = ((1, side, side, 3) for side in sides)
        few, cells, _ = ((-(-side // self.stride),) for side in sides)
        carry = (1, self.channels)
        return {
            INPUT_NAME: (least, best, most),
            ROWS: (few, cells, cells),
            COLUMNS: (few, cells, cells),
            CARRY: (carry, carry, carry),
        }


def check_batch(batch: Batch, native: NativeSize | None) -> None:
    """Raise InputError where a plan cannot have that batch."""
    sizes = (batch,) if isinstance(batch, int) else batch
    if min(sizes) < 1:
        raise InputError(f"no plan has a batch of {min(sizes)} images: give 1 or more")
    if list(sizes) != sorted(sizes):
        raise InputError(
            f"a profile of batches is MIN,OPT,MAX in this order, for instance 1,8,32, not "
            f"{','.join(map(str, sizes))}"
        )
    if native is not None and batch != 1:
        raise InputError(
            "at native resolution a batch is one image: leave --batch and --profile out"
        )


def profile_options(batch: Batch, native: NativeSize | None) -> list[tuple[str, str]]:
    """The part of a plan's key that the shapes are, beside the batch itself."""
    options = []
    if not isinstance(batch, int):
        options.append((PROFILE, ",".join(map(str, batch))))
    if native is not None:
        options.append((SIDES, f"{native.least},{native.tile}"))
    return options


def input_shapes(
    trt: ModuleType, network: Any, graph: Path, batch: Batch, native: NativeSize | None
) -> dict[str, Shapes]:
    """The shapes of every input of a parsed graph, whose inputs and outputs must be a bundle's.

    TensorRT itself would take another input, or none of the batch's size, and fail when it scores.
    Raises InputError for such a graph.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    _check_tensors(trt, inputs, outputs, graph, native)
    declared = {tensor.name: tuple(tensor.shape) for tensor in inputs}
    if native is not None:
        shapes, what = native.shapes(), f"no tile of up to {native.tile} pixels"
    else:
        sizes = (batch,) * 3 if isinstance(batch, int) else batch
        least, best, most = ((size, *declared[INPUT_NAME][1:]) for size in sizes)
        shapes, what = {INPUT_NAME: (least, best, most)}, f"no batch of {batch} of one fixed size"
    for name, of_input in shapes.items():
        pairs = [pair for shape in of_input for pair in zip(declared[name], shape, strict=True)]
        if any(size < 1 or free not in (-1, size) for free, size in pairs):
            raise InputError(
                f"{graph} takes {name} of shape {declared[name]}, which is {what}: export it with "
                "`trtdet build`"
            )
    return shapes


def _check_tensors(
    trt: ModuleType, inputs: list[Any], outputs: list[Any], graph: Path, native: NativeSize | None
) -> None:
    """Raise InputError unless the inputs and outputs are a bundle's, in kind and rank."""
    real = trt.DataType.FLOAT
    # FLOAT: after a resize that does not round.
    image_type = trt.DataType.FLOAT if _is_float(trt, inputs) else trt.DataType.UINT8
    takes, gives = {INPUT_NAME: (image_type, 4)}, {OUTPUT_NAME: (real, 2)}
    if native is not None:
        takes |= {ROWS: (real, 1), COLUMNS: (real, 1), CARRY: (real, 2)}
        gives |= {POOLED: (real, 2)}
    if (_kinds(inputs), _kinds(outputs)) != (takes, gives):
        tensors = (*inputs, *outputs)
        names = ", ".join(f"{t.name} {t.dtype.name} (rank {len(t.shape)})" for t in tensors)
        tiles = "rows, columns, carry and pooled, " if native else ""
        raise InputError(
            f"{graph} has {names or 'no tensors'}, not image UINT8 or FLOAT (rank 4), {tiles}and "
            "logit FLOAT (rank 2): export it with `trtdet build`"
        )


def _kinds(tensors: list[Any]) -> dict[str, tuple[Any, int]]:
    return {tensor.name: (tensor.dtype, len(tensor.shape)) for tensor in tensors}


def _is_float(trt: ModuleType, inputs: list[Any]) -> bool:
    return any(each.name == INPUT_NAME and each.dtype == trt.DataType.FLOAT for each in inputs)
