"""How a detector sees an image in the bundle that is built: its geometry, or its tiles."""

from __future__ import annotations

from dataclasses import dataclass

from trtdet.build.detectors.registry import find_geometry, ten_crop
from trtdet.build.detectors.spec import DetectorSpec, Normalization
from trtdet.engine.geometry import Geometry
from trtdet.engine.tiles import Tiling
from trtdet.errors import InputError

# Height and width of the probes at native resolution: small, no multiples of a stride, and wider
# than the smallest tile of any network.
NATIVE_PROBE = (94, 150)


@dataclass(frozen=True)
class Inputs:
    """How the network sees an image."""

    geometry: Geometry
    name: str  # of the geometry, where it is not the detector's first
    normalization: Normalization
    tolerance: float
    tiling: Tiling | None

    @property
    def probe_size(self) -> tuple[int, int]:
        """Height and width of the probes."""
        return self.geometry.height or NATIVE_PROBE[0], self.geometry.width or NATIVE_PROBE[1]


def choose_inputs(
    specs: list[DetectorSpec], requested: str | None, ten_crops: bool, tile: int | None
) -> Inputs:
    """The `requested` geometry, or the first detector's first, with ten crops or tiles.

    Raises InputError where a detector has it not.
    """
    spec = specs[0]
    geometry, name = find_geometry(spec, requested)
    for other in specs[1:]:
        same = requested or next(iter(spec.geometries))
        if find_geometry(other, same)[0] != geometry or other.normalization != spec.normalization:
            raise InputError(f"{spec.name} and {other.name} do not see an image alike")
    if ten_crops:
        geometry, name = ten_crop(spec, geometry), f"{name}-ten-crop".lstrip("-")
    tiling = None
    if geometry.height is not None and tile is not None:
        raise InputError(f"--tile is for native resolution, and this is {geometry}: leave it out")
    if geometry.height is None:
        tiling = _tiling(spec, tile)
    tolerance = max(spec.tolerance for spec in specs)
    return Inputs(geometry, name, spec.normalization, tolerance, tiling)


def _tiling(spec: DetectorSpec, tile: int | None) -> Tiling:
    """The tiling that the user asked for, but for its channels, which the weights decide."""
    reach = spec.reach
    if reach is None:
        raise InputError(f"{spec.name} has no input of native resolution")
    cells = -(-(reach.receptive_field // 2) // reach.stride)
    try:
        return Tiling(
            reach.stride,
            cells * reach.stride,
            tile or reach.tile,
            channels=1,
            pixel_bytes=reach.pixel_bytes,
            blocks=reach.blocks,
        )
    except ValueError as error:
        raise InputError(f"--tile {tile}: {error}") from error
