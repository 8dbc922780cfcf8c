"""`trtdet build`: a checkpoint becomes a bundle that was compared with the network in torch.

The bundle appears at its place only after its compiled engine gave the probes' reference logits;
whatever stops the build before that leaves what was there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import nn

from trtdet.build.detectors.spec import DetectorSpec, Normalization
from trtdet.build.finish import finish_bundle
from trtdet.build.graph import (
    EngineModule,
    export_graph,
    export_tiles,
)
from trtdet.build.inputs import Inputs, choose_inputs
from trtdet.build.judge import Judge
from trtdet.build.load import (
    Fetch,
    Loaded,
    find_detectors,
    find_files,
    load_detectors,
    split_variants,
)
from trtdet.build.material import PrecisionRequest, frame_of, gather
from trtdet.build.placing import (
    OnStage,
    tool_versions,
)
from trtdet.build.pooled import Pooled, TileModule, pooled_channels
from trtdet.build.probes import make_probes
from trtdet.build.simplify import probe_logits, write_simplified
from trtdet.engine.atomic import atomic_folder
from trtdet.engine.backends import (
    OPENVINO,
    BackendStatus,
    choose_backend,
    refuse_drift,
)
from trtdet.engine.bundle import (
    Bundle,
    Probes,
    measure_drift,
    save_probes,
)
from trtdet.engine.decision import AS_IT_IS, Decision
from trtdet.engine.geometry import Pixels
from trtdet.engine.store import bundle_folder, check_place
from trtdet.errors import InputError


@dataclass(frozen=True)
class BuildRequest:
    """What the user asked for."""

    model: str  # or several, separated by commas
    weights: tuple[Path, ...] = ()  # one per model; none: the released ones, fetched
    variant: str | None = None  # separated by commas, too; None: recognised from the weights
    backbone: Path | None = None  # CLIP's file, for detectors on its tower; None: fetched
    geometry: str | None = None  # None: the detector's first
    ten_crop: bool = False  # in place of the centre crop
    platt: Decision = AS_IT_IS
    tile: int | None = None  # pixels, at native resolution; None: the detector's
    name: str | None = None  # None: the model's, with its variant where there are several
    out: Path | None = None  # the bundle's folder; None: in the store, under its name
    batch: int = 1
    targets: tuple[str, ...] = ()  # compute capabilities to compile TensorRT-RTX plans for
    precision: PrecisionRequest = PrecisionRequest()  # noqa: RUF009 - frozen
    fetch: Fetch | None = None  # a released file, from the store or the network


def build_bundle(request: BuildRequest, on_stage: OnStage) -> Bundle:
    """Build, compare and place a bundle. `on_stage` hears one line per stage.

    Raises InputError (unknown detector, a folder in the way), CheckpointError (wrong weights),
    DriftError (the engine does not give the network's logits), PrecisionError (fewer bits move them
    too far), BackendError (nothing compiles it).
    """
    specs = find_detectors(request.model)
    variants = split_variants(specs, request.variant)
    inputs = _choose_inputs(specs, request)
    backend, _rejected = choose_backend(OPENVINO)  # what every comparison below runs on
    if request.name is not None:
        bundle_folder(request.name)  # refuses a name that is none, before any work
    if request.out is not None:
        check_place(request.out)
    material = gather(request.precision, inputs.geometry, inputs.tiling, on_stage)
    weights, backbone = find_files(
        specs, variants, request.weights, request.backbone, request.fetch
    )
    on_stage(f"weights    {', '.join(map(str, weights))}")
    loaded = load_detectors(specs, weights, variants, backbone)
    if loaded.tower is not None and not loaded.tower.released:
        on_stage(
            f"backbone   {loaded.tower.name} is no released file that is known: taken for a tower "
            "with QuickGELU, as OpenAI's"
        )
    name = request.name or _default_name(loaded, inputs, request.precision)
    out = request.out or bundle_folder(name)
    check_place(out)
    with atomic_folder(out) as folder:
        which = ", ".join(f"{part.spec.name} ({part.variant.name})" for part in loaded.parts)
        on_stage(f"reference  {which} in torch, on generated probes")
        probes = make_probes(*inputs.probe_size)
        reference = torch_logits(loaded.network, inputs.normalization, probes[:, None])
        save_probes(Probes(probes, reference), folder)
        if material is not None:
            on_stage(f"reference  the same on {len(material.gate)} images to judge by")
            reference = torch_logits(loaded.network, inputs.normalization, material.gate)
        network, inputs = _fold(loaded, inputs)
        fixed = frozenset(f"network.{name}" for name, _ in network.named_buffers())
        _write_graph(network, inputs, backend, folder, on_stage)
        bundle = _describe(loaded, inputs, request, name, folder)
        judge = None
        if material is not None:
            judge = Judge(frame_of(bundle, fixed), material, reference, backend)
        bundle = finish_bundle(
            bundle, judge, request.precision, request.targets, backend, "torch", out, on_stage
        )
    return replace(bundle, path=out)


def _choose_inputs(specs: list[DetectorSpec], request: BuildRequest) -> Inputs:
    """What the user asked for. Raises InputError where that cannot be, before any work."""
    inputs = choose_inputs(specs, request.geometry, request.ten_crop, request.tile)
    if len(specs) > 1 and request.platt != AS_IT_IS:
        raise InputError("--platt calibrates one logit: build each detector by itself for it")
    if inputs.tiling is None:
        return inputs
    if request.batch != 1:
        raise InputError("at native resolution images go through one at a time: leave --batch out")
    if request.targets:
        raise InputError("no plan takes images of any size yet: leave --target out")
    return inputs


def _describe(
    loaded: Loaded, inputs: Inputs, request: BuildRequest, name: str, folder: Path
) -> Bundle:
    """The bundle's record, but for the drift, which is measured through it."""
    parts, normalization = loaded.parts, inputs.normalization
    specs = [part.spec for part in parts]
    return Bundle(
        name=name,
        detector=",".join(spec.name for spec in specs),
        variant=",".join(part.variant.name for part in parts),
        title=_joined(spec.title for spec in specs),
        paper=_joined(spec.paper for spec in specs),
        repository=_joined(spec.repository for spec in specs),
        licence=_joined(spec.licence for spec in specs),
        trained_on=_joined(
            part.variant.trained_on if part.released else "unknown: not a released checkpoint"
            for part in parts
        ),
        note=_joined(spec.note for spec in specs),
        precision="fp32",
        geometry=inputs.geometry,
        normalization={"mean": list(normalization.mean), "std": list(normalization.std)},
        batch=request.batch,
        tolerance=inputs.tolerance,
        checkpoint=_checkpoints(loaded),
        hashes={},
        drift={},
        tools=tool_versions("torch", "onnx", "onnxscript", "onnxsim", "numpy"),
        outputs=tuple(spec.name for spec in specs) if len(specs) > 1 else ("logit",),
        decision=request.platt,
        tiling=inputs.tiling,
        path=folder,
    )


def _checkpoints(loaded: Loaded) -> dict[str, Any]:
    """Which files the weights came from: of the detector, or of each, and of the tower."""
    files: dict[str, Any] = {
        part.spec.name: {"file": part.file, "released": part.released, **asdict(part.identity)}
        for part in loaded.parts
    }
    if len(files) == 1:
        (files,) = files.values()
    if (tower := loaded.tower) is not None:
        released = {"file": tower.name, "released": tower.released or False}
        files["backbone"] = {**released, **asdict(tower.identity)}
    return files


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))


def _default_name(loaded: Loaded, inputs: Inputs, precision: PrecisionRequest) -> str:
    names = []
    for part in loaded.parts:
        only = len(part.spec.variants) == 1 or part.variant.name == part.spec.name
        names += [part.spec.name] if only else [part.spec.name, part.variant.name]
    bits = "" if precision.precision == "fp32" else precision.precision
    return "-".join(filter(None, [*names, inputs.name, bits]))


def torch_logits(
    network: nn.Module, normalization: Normalization, images: Iterable[Pixels]
) -> NDArray[np.float32]:
    """The logits [N, K] of the network as its paper has it, nothing folded.

    Each image is its views [views, H, W, 3], whose logits are averaged.
    """
    module = EngineModule(network, normalization)
    with torch.inference_mode():
        # Copies: a decoded image may be read-only, which torch does not know.
        logits = [module(torch.from_numpy(image.copy())).double().mean(0) for image in images]
    return torch.stack(logits).float().numpy()


def _fold(loaded: Loaded, inputs: Inputs) -> tuple[nn.Module, Inputs]:
    """The same network with fewer operations, and how many features its tiles hand on."""
    network = loaded.simplify(loaded.network)
    if inputs.tiling is None:
        return network, inputs
    assert isinstance(network, Pooled)
    tiling = replace(inputs.tiling, channels=pooled_channels(network))
    return network, replace(inputs, tiling=tiling)


def _write_graph(
    network: nn.Module, inputs: Inputs, backend: BackendStatus, folder: Path, on_stage: OnStage
) -> None:
    """Export and simplify; what the graph gives before, after and in tiles must agree."""

    def export() -> ModelProto:
        if inputs.tiling is None:
            module = EngineModule(network, inputs.normalization)
            return export_graph(module, *inputs.probe_size)
        assert isinstance(network, Pooled)
        return export_tiles(TileModule(network, inputs.normalization), inputs.tiling)

    on_stage("export     ONNX, opset 18, uint8 NHWC in, float32 logit out")
    probe = partial(probe_logits, folder, backend, inputs.geometry)
    whole = write_simplified(
        export, partial(probe, inputs.tiling), folder, inputs.tolerance, on_stage
    )
    if inputs.tiling is not None:
        drift = measure_drift(probe(inputs.tiling.smallest()), whole, "openvino in tiles")
        refuse_drift(drift, inputs.tolerance, "the image in tiles of the smallest size")
