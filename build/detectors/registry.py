"""Which detectors there are, and which released checkpoint a file is."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache

import trtdet.build.detectors
from trtdet.build.checkpoint import Identity
from trtdet.build.detectors.spec import DetectorSpec, Variant
from trtdet.engine.geometry import Geometry
from trtdet.engine.steps import CenterCrop, TenCrop
from trtdet.errors import InputError


@cache
def detectors() -> dict[str, DetectorSpec]:
    """Every detector by name: the `SPEC` of each module beside this one."""
    package = trtdet.build.detectors
    modules = [
        importlib.import_module(f"{package.__name__}.{found.name}")
        for found in pkgutil.iter_modules(package.__path__)
    ]
    specs = [module.SPEC for module in modules if hasattr(module, "SPEC")]
    return {spec.name: spec for spec in sorted(specs, key=lambda spec: str(spec.name))}


def find_detector(name: str) -> DetectorSpec:
    """The detector called `name`. Raises InputError with the nearest names."""
    known = detectors()
    if name not in known:
        raise InputError(_unknown("detector", name, list(known)))
    return known[name]


def choose_variant(spec: DetectorSpec, requested: str | None, weights: Identity) -> Variant:
    """The variant of `spec` that these weights are, or count as.

    Released tensors are recognised, whatever the file is called. Others (a user's own training)
    take the requested variant, or the first where all variants have the same network.
    Raises InputError where only the user can know, and where --variant contradicts the tensors.
    """
    named = _named(spec, requested)
    for variant in spec.variants:
        if is_released(variant, weights):
            if requested not in (None, variant.name):
                raise InputError(
                    f"these are the released weights of {spec.name}, variant {variant.name} "
                    f"({variant.file}): --variant {requested} contradicts them, leave it out"
                )
            return variant
    if named is None:
        raise InputError(
            f"these are no released weights of {spec.name}, and its variants differ in what they "
            f"compute: say which these were trained as, --variant {_names(spec)}"
        )
    return named


def find_variant(spec: DetectorSpec, requested: str | None) -> Variant:
    """The variant whose network to train. Raises InputError where only the user can know."""
    named = _named(spec, requested)
    if named is None:
        raise InputError(
            f"the variants of {spec.name} differ in what they compute: say which to train, "
            f"--variant {_names(spec)}"
        )
    return named


def _named(spec: DetectorSpec, requested: str | None) -> Variant | None:
    """The requested variant; unasked, the first where all have the same network, else None."""
    if requested is None:
        alike = len({variant.front_end for variant in spec.variants}) == 1
        return spec.variants[0] if alike else None
    for variant in spec.variants:
        if variant.name == requested:
            return variant
    names = [variant.name for variant in spec.variants]
    raise InputError(_unknown(f"variant of {spec.name}", requested, names))


def _names(spec: DetectorSpec) -> str:
    return "|".join(variant.name for variant in spec.variants)


def is_released(variant: Variant, weights: Identity) -> bool:
    """Whether these weights are the variant's published ones, by their tensors or their file."""
    return weights.fingerprint == variant.fingerprint or weights.git_blob == variant.git_blob


def find_geometry(spec: DetectorSpec, name: str | None) -> tuple[Geometry, str]:
    """The geometry called `name` and, where it is not the detector's first, its name.

    Raises InputError for one that the detector was not published with.
    """
    if name is None or name == next(iter(spec.geometries)):
        return spec.geometry, ""
    if name not in spec.geometries:
        raise InputError(_unknown(f"geometry of {spec.name}", name, list(spec.geometries)))
    return spec.geometries[name], name


def ten_crop(spec: DetectorSpec, geometry: Geometry) -> Geometry:
    """Ten crops in place of the centre crop. Raises InputError where there is none."""
    if not (geometry.steps and isinstance(last := geometry.steps[-1], CenterCrop)):
        raise InputError(f"{spec.name} does not end in a centre crop: ten crops have no place")
    return Geometry((*geometry.steps[:-1], TenCrop(last.height, last.width)))


def _unknown(kind: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"there is no {kind} called {name!r}.{hint} Known: {', '.join(known)}"
