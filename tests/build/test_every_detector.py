"""Every detector in the registry, from its authors' file to a row of the output.

A new detector is tested by what runs over the registry, from the day its record is there.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tests.conftest import read_rows, run_trtdet, write_rows

torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

from trtdet.build.assemble import BuildRequest, build_bundle  # noqa: E402
from trtdet.build.detectors.registry import detectors  # noqa: E402
from trtdet.build.detectors.spec import DetectorSpec  # noqa: E402
from trtdet.build.graph import EngineModule  # noqa: E402
from trtdet.build.load import load_detectors  # noqa: E402
from trtdet.cli import cli  # noqa: E402
from trtdet.engine.bundle import load_probes, open_bundle  # noqa: E402
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_rgb  # noqa: E402
from trtdet.engine.geometry import Geometry, apply_geometry  # noqa: E402
from trtdet.engine.tiles import plan_tiles  # noqa: E402
from trtdet.errors import InputError  # noqa: E402

# NoDown networks cost half a minute each. One of the four takes part in every run.
LATER = ("aligned", "corvi", "gan-nodown")
SPECS = pytest.mark.parametrize(
    "spec",
    [
        pytest.param(spec, id=name, marks=[pytest.mark.full] if name in LATER else [])
        for name, spec in detectors().items()
    ],
)


@pytest.fixture
def bundle(spec: DetectorSpec, built) -> Path:
    return built(spec.name, spec.variants[0].name)


def torch_logits(spec: DetectorSpec, files, geometry: Geometry, paths: list[Path]) -> np.ndarray:
    """The network of the detector's file, as its paper has it, on the same pixels."""
    weights, backbone = files
    loaded = load_detectors([spec], [weights], [spec.variants[0].name], backbone)
    module = EngineModule(loaded.network, spec.normalization).eval()
    logits = []
    with torch.inference_mode():
        for path in paths:
            rgb = decode_rgb(path.read_bytes(), max_pixels=DEFAULT_MAX_PIXELS)
            views = np.array(apply_geometry(geometry, rgb))
            logits.append(module(torch.from_numpy(views)).mean(0))  # over an image's views
    return torch.cat(logits).numpy()  # [N]


@SPECS
def test_the_record_reads_back(spec: DetectorSpec, bundle: Path):
    opened = open_bundle(bundle)
    assert opened.to_json() == json.loads((bundle / "bundle.json").read_text())
    assert (opened.detector, opened.variant) == (spec.name, spec.variants[0].name)
    assert (opened.title, opened.paper, opened.licence) == (spec.title, spec.paper, spec.licence)
    assert opened.geometry == spec.geometry
    assert opened.normalization["mean"] == list(spec.normalization.mean)
    assert (opened.outputs, opened.tolerance) == (("logit",), spec.tolerance)
    assert (opened.tiling is None) == (spec.geometry.height is not None)
    assert opened.checkpoint["released"] is False
    assert ("backbone" in opened.checkpoint) == (spec.head is not None)
    assert 0 < opened.drift["max_relative"] <= spec.tolerance
    probes = load_probes(bundle).logits
    assert probes.shape == (4, 1)
    assert len(np.unique(probes)) == 4  # the probes tell this network from a constant


@SPECS
def test_scoring_gives_the_logits_of_torch(
    spec: DetectorSpec, bundle: Path, synthetic_files, pictures, small_pictures, tmp_path
):
    native = spec.geometry.height is None
    paths = small_pictures if native else [*small_pictures, *pictures[::4]]
    table = write_rows(tmp_path / "in.csv", map(str, paths))
    run_trtdet("score", "--engine", bundle, table, tmp_path / "out.csv")
    rows = read_rows(tmp_path / "out.csv")
    assert rows[0] == ["filename", "logit"]
    logits = np.array([float(row[1]) for row in rows[1:]])
    files = synthetic_files(spec.name, spec.variants[0].name)
    expected = torch_logits(spec, files, spec.geometry, paths)
    assert len(np.unique(expected)) == len(paths)
    error = np.abs(logits - expected) / (1 + np.abs(expected))
    assert error.max() <= spec.tolerance


@SPECS
def test_inspect_shows_it(spec: DetectorSpec, bundle: Path):
    shown = " ".join(run_trtdet("inspect", bundle).stdout.split())
    for text in (spec.name, spec.paper, spec.licence, spec.note, str(spec.geometry)):
        assert " ".join(text.split()) in shown
    record = json.loads(run_trtdet("inspect", "--json", bundle).stdout)
    assert record == json.loads((bundle / "bundle.json").read_text())


@SPECS
def test_models_lists_it(spec: DetectorSpec):
    shown = invoke("models").output
    part = shown[shown.index(f"{spec.name}\n  what") :].split("\n\n")[0]
    texts = (spec.title, spec.paper, spec.repository, spec.licence, str(spec.geometry), spec.note)
    assert [text for text in texts if text not in part] == []
    for variant in spec.variants:
        assert f"{variant.name}: trained on {variant.trained_on}" in part
    records = {each["name"]: each for each in json.loads(invoke("models", "--json").output)}
    assert set(records) == set(detectors())
    names = [each["name"] for each in records[spec.name]["variants"]]
    assert names == [variant.name for variant in spec.variants]


@SPECS
def test_a_wrong_geometry_is_answered_with_its_own(spec: DetectorSpec, tmp_path):
    request = BuildRequest(spec.name, (tmp_path / "no.pth",), geometry="spiral")
    with pytest.raises(InputError) as refusal:
        build_bundle(request, on_stage=lambda _line: None)
    message = str(refusal.value)
    assert f"there is no geometry of {spec.name} called 'spiral'" in message
    assert message.endswith(f"Known: {', '.join(spec.geometries)}")


QUICK = (("npr", "repeat-crop-224"), ("ferretnet-s", "native"))


def further_geometries() -> list:
    """All but the first of every detector; the quick ones stand for their kinds of steps."""
    cases = []
    for spec in detectors().values():
        for name in list(spec.geometries)[1:]:
            marks = [] if (spec.name, name) in QUICK else [pytest.mark.full]
            cases.append(pytest.param(spec, name, id=f"{spec.name} {name}", marks=marks))
    return cases


@pytest.mark.parametrize(("spec", "geometry"), further_geometries())
def test_every_other_geometry_too(
    spec, geometry, built, synthetic_files, small_pictures, pictures, tmp_path
):
    bundle = built(spec.name, spec.variants[0].name, geometry=geometry)
    opened = open_bundle(bundle)
    assert opened.geometry == spec.geometries[geometry]
    paths = [*small_pictures, *pictures[::4]]
    table = write_rows(tmp_path / "in.csv", map(str, paths))
    run_trtdet("score", "--engine", bundle, table, tmp_path / "out.csv")
    logits = np.array([float(row[1]) for row in read_rows(tmp_path / "out.csv")[1:]])
    files = synthetic_files(spec.name, spec.variants[0].name)
    expected = torch_logits(spec, files, opened.geometry, paths)
    error = np.abs(logits - expected) / (1 + np.abs(expected))
    assert error.max() <= spec.tolerance


def test_a_detectors_tiling_is_its_reach(built):
    for spec in detectors().values():
        if spec.reach is None or spec.geometry.height is not None or spec.name in LATER:
            continue
        tiling = open_bundle(built(spec.name, spec.variants[0].name)).tiling
        reach = spec.reach
        assert (tiling.stride, tiling.tile, tiling.blocks) == (
            reach.stride,
            reach.tile,
            reach.blocks,
        )
        assert tiling.halo >= reach.receptive_field // 2
        assert tiling.halo - reach.receptive_field // 2 < reach.stride
        assert len(list(plan_tiles(640, 640, tiling))) == 1
        assert len(list(plan_tiles(640, 641, tiling))) == 2


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, list(arguments))
    assert result.exit_code == 0, result.output
    return result
