"""Fewer bits, judged: what passes is near, what was spoiled is caught, and the report says all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import read_rows, run_trtdet, write_rows

torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

import onnx  # noqa: E402
from onnx import ModelProto, numpy_helper  # noqa: E402
from PIL import Image  # noqa: E402

from trtdet.build.candidates import write_eight  # noqa: E402
from trtdet.build.float_graph import FloatGraph, read_float_graph  # noqa: E402
from trtdet.build.judge import Judge, graph_logits  # noqa: E402
from trtdet.build.material import Frame, Material, frame_of  # noqa: E402
from trtdet.calibration.collect import Tap  # noqa: E402
from trtdet.calibration.draw import draw_set  # noqa: E402
from trtdet.calibration.gate import Limits, failures_of  # noqa: E402
from trtdet.calibration.generated import draw_image  # noqa: E402
from trtdet.calibration.images import CalibrationSet  # noqa: E402
from trtdet.calibration.quantize import ZERO, count_layers, quantize_graph  # noqa: E402
from trtdet.calibration.ranges import RangeKey, Ranges  # noqa: E402
from trtdet.calibration.regions import find_regions  # noqa: E402
from trtdet.calibration.sites import Site, find_sites  # noqa: E402
from trtdet.engine.backends import choose_backend  # noqa: E402
from trtdet.engine.bundle import open_bundle  # noqa: E402
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_rgb  # noqa: E402
from trtdet.engine.digest import sha256_file  # noqa: E402
from trtdet.errors import WeightsError  # noqa: E402

SIDE = 96


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """300 pieces of generated images, of either class by turns."""
    folder = tmp_path_factory.mktemp("pictures")
    lines = ["filename,label"]
    for index in range(100):
        if index % 10 == 0:
            whole = decode_rgb(draw_image(index // 10), max_pixels=DEFAULT_MAX_PIXELS)
        rng = np.random.default_rng(index)
        for part in range(3):
            top, left = (int(rng.integers(0, size - SIDE)) for size in whole.shape[:2])
            name = f"{index:03}-{part}.png"
            Image.fromarray(whole[top : top + SIDE, left : left + SIDE]).save(folder / name)
            lines.append(f"{name},{(index + part) % 2}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


class Bench:
    """NPR with random features, calibrated, and the judge of what becomes of it.

    Its head looks along what varies most from image to image, as a trained one does: in a random
    direction there is more of rounding than of the image.
    """

    def __init__(self, bundle: Path, pictures: Path, folder: Path):
        self.folder, self.graph = folder, folder / "float.onnx"
        opened = open_bundle(bundle)
        self.frame: Frame = frame_of(opened)
        chosen = draw_set(pictures, size=32, gate_size=96)
        views = [each.views(opened.geometry) for each in chosen.of("gate")]
        self.material = Material(chosen, views, None)
        graph = onnx.load(opened.graph)
        (head,) = (node for node in graph.graph.node if node.op_type == "Gemm")
        tap = Tap(opened.graph, [head.input[0]])
        seen = [tap.look({"image": view})[0][head.input[0]].copy() for view in views]
        features = np.concatenate(seen)
        middle = features.mean(0)
        axis = np.linalg.svd(features - middle)[2][0]
        axis *= 4 / np.std(features @ axis)
        # 0 lies in the widest gap of the middle half: no rounding changes what is next to it.
        ordered = np.sort(features @ axis)[len(features) // 4 : -len(features) // 4]
        widest = int(np.argmax(np.diff(ordered)))
        values = (axis[None], -ordered[widest : widest + 2].mean(keepdims=True))
        for name, value in zip(head.input[1:], values, strict=True):
            constant(graph, name).CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
        onnx.save(graph, self.graph)
        backend, _ = choose_backend("auto")
        reference = graph_logits(self.graph, self.frame, backend, views)
        self.judge = Judge(self.frame, self.material, reference, backend)

        self.source = self.calibrated(self.material)

    def calibrated(self, material: Material) -> FloatGraph:
        return read_float_graph(
            self.graph, self.frame, material, "max", self.folder, on_stage=lambda _line: None
        )

    def failures(self, graph: ModelProto) -> list[str]:
        onnx.save(graph, self.folder / "candidate.onnx")
        logits = self.judge.gate(self.folder / "candidate.onnx")
        return failures_of(self.judge.compare(logits), Limits())


@pytest.fixture(scope="module")
def bench(built, pictures, tmp_path_factory) -> Bench:
    return Bench(built("npr", "npr"), pictures, tmp_path_factory.mktemp("bench"))


def constant(graph: ModelProto, name: str):
    (found,) = (each for each in graph.graph.initializer if each.name == name)
    return found


def test_what_is_not_spoiled_passes(bench):
    source = bench.source
    assert bench.failures(source.half()) == []
    assert bench.failures(source.eight()) == []


def wrong_scale(bench: Bench) -> ModelProto:
    """A weight's steps three times too large."""
    graph = bench.source.eight()
    steps = constant(graph, "network.features.layer1.1.conv2.weight_step_half")
    values = (3 * numpy_helper.to_array(steps)).astype(np.float16)
    steps.CopyFrom(numpy_helper.from_array(values, steps.name))
    return graph


def unsigned_zero_point(bench: Bench) -> ModelProto:
    """What TensorRT would silently read as signed."""
    graph = bench.source.eight()
    constant(graph, ZERO).CopyFrom(numpy_helper.from_array(np.array(0, np.uint8), ZERO))
    return graph


def quantized_front(bench: Bench) -> ModelProto:
    """NPR's difference in 8 bits."""
    source = bench.source
    (first,) = (node for node in source.graph.graph.node if node.op_type == "Conv"
                and node.input[1] == "network.features.conv1.weight")  # fmt: skip
    image = next(node for node in source.graph.graph.node if node.op_type == "Sub")
    sites = (Site(image.output[0], image.input[0], "front"),)
    assert first.input[0] in source.regions.front
    return quantize_graph(source.graph, sites, {image.input[0]: 2.7})


def black_calibration(bench: Bench) -> ModelProto:
    """Ranges of images that show nothing."""
    folder = bench.folder / "black"
    folder.mkdir()
    for index in range(40):
        pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
        pixels[0, :index] = 1  # not twice the same picture
        Image.fromarray(pixels).save(folder / f"{index}.png")
    chosen = draw_set(folder, size=40, gate_size=0)
    return bench.calibrated(Material(chosen, [], None)).eight()


def saturating_layer(bench: Bench) -> ModelProto:
    """One tensor's range an eighth of what it is."""
    source = bench.source
    limits = dict(source.ranges.limits)
    limits["relu_9"] /= 8
    ranges = replace(source.ranges, limits=limits)
    return replace(source, ranges=ranges).eight()


@pytest.mark.parametrize(
    "fault",
    [wrong_scale, unsigned_zero_point, quantized_front, black_calibration, saturating_layer],
    ids=lambda fault: fault.__name__,
)
def test_the_gate_catches_planted_faults(bench, fault: Callable[[Bench], ModelProto]):
    assert bench.failures(fault(bench))


class TestBuild:
    """`trtdet build` with fewer bits, as a user runs it."""

    @pytest.fixture
    def build(self, synthetic_files, pictures):
        weights, _ = synthetic_files("tiny-ladeda", "wildrf")

        def run(*options, check=True):
            model = ("--model", "tiny-ladeda", "--variant", "wildrf", "--weights", weights)
            return run_trtdet("build", *model, *options, check=check)

        return run

    def test_int8_is_built_and_reported_and_scores(self, build, pictures, tmp_path):
        out = tmp_path / "npr-int8"
        options = (
            "--int8",
            "--report-only",
            "--calibration",
            pictures / "labels.csv",
            "--out",
            out,
        )
        said = build(*options).stderr
        assert re.search(r"gate +int8: 99 % of 256 logits within", said)
        assert re.search(r"speed +images per second on openvino: int8 .*, fp32 .*, fp16", said)
        bundle = open_bundle(out)
        report = bundle.precision_report
        assert (bundle.precision, report["layers_in_8_bits"]) == ("int8", 2)
        assert report["gpu"] == "unverified on a GPU"
        assert report["images"]["generated"] is False
        assert (report["images"]["calibration"], report["images"]["gate"]) == (44, 256)
        assert set(report["images_per_s"]) == {"fp32", "fp16", "int8"}
        compared = report["compared"]["int8"]["logit"]
        assert compared["images"] == 256
        assert len(compared["auc"]) == 2
        assert {"model.onnx", "probes.npz", "ranges.json", "gate.npz"} == set(bundle.hashes)
        assert not list(out.glob("*.onnx"))[1:]
        table = run_trtdet("inspect", "--precision", out).stdout
        assert "2 layers in 8 bits" in table
        assert json.loads(run_trtdet("inspect", "--precision", "--json", out).stdout) == {
            "name": bundle.name, **json.loads(json.dumps(report))
        }  # fmt: skip
        first = sorted(pictures.glob("*.png"))[:8]
        write_rows(tmp_path / "in.csv", map(str, first))
        run_trtdet("score", "--engine", out, tmp_path / "in.csv", tmp_path / "out.csv")
        assert len(read_rows(tmp_path / "out.csv")) == 9
        # A decision that is fitted later is judged as well.
        said = run_trtdet("calibrate", "decision", out, pictures / "labels.csv").stderr
        assert "fewer bits, judged at this decision:" in said
        assert open_bundle(out).precision_report["compared"]["int8"]["logit"]["images"] == 256
        # The same ranges serve again; another method needs others, and says so.
        assert "do not hold" not in build(*options).stderr
        said = build(*options, "--ranges", "max").stderr
        assert "those of the last build do not hold: another method" in said

    def test_an_engine_that_changed_since_it_was_judged_is_not_opened(
        self, build, pictures, tmp_path
    ):
        out = tmp_path / "npr-fp16"
        build("--fp16", "--report-only", "--calibration", pictures, "--out", out)
        assert open_bundle(out).tolerance < 0.5
        graph = onnx.load(out / "model.onnx")
        weight = next(each for each in graph.graph.initializer
                      if each.name.endswith("weight_half") and len(each.dims) == 4)  # fmt: skip
        values = numpy_helper.to_array(weight) * np.float16(1.5)
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        onnx.save(graph, out / "model.onnx")
        record = json.loads((out / "bundle.json").read_text())
        record["hashes"]["model.onnx"] = sha256_file(out / "model.onnx")
        (out / "bundle.json").write_text(json.dumps(record))
        write_rows(tmp_path / "in.csv", [])
        done = run_trtdet("score", "--engine", out, tmp_path / "in.csv", tmp_path / "out.csv",
                          check=False)  # fmt: skip
        assert done.returncode == 5
        assert "drifts by" in done.stderr

    @pytest.mark.full
    def test_too_few_images_are_refused_before_any_work(self, build, pictures, tmp_path):
        few = tmp_path / "few"
        few.mkdir()
        for path in sorted(pictures.glob("*.png"))[:60]:
            (few / path.name).write_bytes(path.read_bytes())
        done = build("--int8", "--calibration", few, check=False)
        assert done.returncode == 2
        assert "28 images are too few to judge an INT8 engine by: give 256" in done.stderr
        assert "export" not in done.stderr
        said = build(
            "--int8", "--calibration", few, "--report-only", "--out", tmp_path / "a"
        ).stderr
        assert "28 logits" in said
        verdict = open_bundle(tmp_path / "a").precision_report["verdict"]
        assert "not gated" in verdict or "beyond its limits" in verdict
        for path in list(few.iterdir())[20:]:
            path.unlink()
        done = build("--fp16", "--calibration", few, check=False)
        assert "20 usable images, and calibration needs 32 or more" in done.stderr

    @pytest.mark.full
    def test_what_cannot_pass_fails_with_its_table(self, build, pictures, tmp_path):
        done = build("--int8", "--calibration", pictures, "--max-p99", "0", "--out",
                     tmp_path / "no", check=False)  # fmt: skip
        assert done.returncode == 6
        assert re.search(
            r"no choice of groups passes.*--fp16[\s\S]*layer1.0.conv1 +0\.", done.stderr
        )
        assert not (tmp_path / "no").exists()

    @pytest.mark.full
    def test_auto_takes_float32_where_nothing_else_passes(self, build, pictures, tmp_path):
        out = tmp_path / "auto"
        options = ("--max-p99", "0.000001", "--search-minutes", "0", "--out", out)
        said = build("--precision", "auto", "--calibration", pictures, *options).stderr
        assert re.search(r"chosen +fp32", said)
        bundle = open_bundle(out)
        assert (bundle.precision, bundle.tolerance) == ("fp32", 1e-3)
        assert set(bundle.precision_report["compared"]) == {"fp32", "fp16", "int8"}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--int8", "--fp16"), "fp16, int8 contradict each other"),
            (("--calibration", "x"), "--calibration and --report-only are for --fp16"),
            (("--int8", "--max-flips", "2"), "2 is no share: write 1% or 0.01"),
            (("--int8", "--calibration", "gone"), "cannot read gone"),
            (("--int8", "--calibration", "gone.json"), "cannot read gone.json"),
        ],
    )
    def test_wrong_options_are_told(self, build, options, message):
        done = build(*options, check=False)
        assert done.returncode == 2
        assert message in done.stderr


@pytest.mark.parametrize("precision", [pytest.param("--fp16", marks=pytest.mark.full), "--int8"])
def test_a_network_without_a_body_says_why(synthetic_files, pictures, tmp_path, precision):
    weights, _ = synthetic_files("cooccurrence", "cooccurrence")
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(pictures.glob("*.png"))[:60]:
        (few / path.name).write_bytes(path.read_bytes())
    done = run_trtdet("build", "--model", "cooccurrence", "--weights", weights, precision,
                      "--report-only", "--calibration", few, check=False)  # fmt: skip
    assert done.returncode == 2
    assert "nothing to compute in fewer bits" in done.stderr


def test_layers_without_an_8_bit_kernel_stay_in_float16(shared, tmp_path):
    """FerretNet's shortcuts, which OpenVINO would prepare anew, and wrongly at times."""
    checkpoint = shared / "checkpoints/ferretnet-s-median-3.pth"
    run_trtdet("build", "--model", "ferretnet-s", "--weights", checkpoint, "--out", tmp_path / "f")
    bundle = open_bundle(tmp_path / "f")
    graph, frame = onnx.load(bundle.graph), frame_of(bundle)
    regions = find_regions(graph, frame.input_shapes())
    sites = tuple(find_sites(graph, regions))
    key = RangeKey("", "", "", "", "max")
    ranges = Ranges(key, {site.tensor: 4.0 for site in sites}, {})
    source = FloatGraph(graph, regions, sites, ranges)
    backend, _ = choose_backend("openvino")
    nothing = Material(CalibrationSet(()), [], None)
    judge = Judge(frame, nothing, np.zeros((0, 1), np.float32), backend)
    everything = tmp_path / "everything.onnx"
    onnx.save(source.eight(), everything)
    with pytest.raises(WeightsError, match="no 8-bit kernel on this machine") as raised:
        judge.open(everything)
    assert any("shortcut" in layer for layer in raised.value.layers)
    path = write_eight(source, (), tmp_path / "possible.onnx", judge)
    judge.open(path).close()
    assert 0 < count_layers(onnx.load(path)) < count_layers(onnx.load(everything))
