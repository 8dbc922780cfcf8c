"""What `trtdet build` promises: compared before it is placed, whole or not there at all."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import read_rows, refusal, run_trtdet, write_rows

torch = pytest.importorskip("torch", reason="building needs torch (trtdet[build])")

from torch import nn  # noqa: E402

from trtdet.build import assemble  # noqa: E402
from trtdet.build.assemble import BuildRequest, build_bundle  # noqa: E402
from trtdet.build.compile import compile_plan  # noqa: E402
from trtdet.build.detectors.registry import detectors, find_detector  # noqa: E402
from trtdet.build.detectors.spec import DetectorSpec  # noqa: E402
from trtdet.engine import store  # noqa: E402
from trtdet.engine.bundle import open_bundle  # noqa: E402
from trtdet.engine.decision import Decision  # noqa: E402
from trtdet.errors import CheckpointError, DriftError, InputError  # noqa: E402


@pytest.fixture
def weights(synthetic_weights) -> Path:
    return synthetic_weights("tiny-ladeda", "wildrf")


def quietly(_line: str) -> None:
    pass


class Louder(nn.Module):
    """A network whose logits are a hundredth too large."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x) * 1.01 + 0.1


def drifting(spec: DetectorSpec) -> DetectorSpec:
    return replace(spec, simplify=lambda network: Louder(spec.simplify(network)))


def test_a_bundle_that_drifts_is_refused_and_the_last_one_stays(weights, tmp_path, monkeypatch):
    request = BuildRequest("tiny-ladeda", (weights,), "wildrf", out=tmp_path / "bundle")
    request.out.mkdir()  # an empty folder is in nobody's way
    build_bundle(request, quietly)
    before = {path.name: path.read_bytes() for path in request.out.iterdir()}
    spec = find_detector("tiny-ladeda")
    monkeypatch.setattr(assemble, "find_detectors", lambda _model: [drifting(spec)])
    with pytest.raises(DriftError, match="drifts by"):
        build_bundle(request, quietly)
    assert {path.name: path.read_bytes() for path in request.out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_same_weights_give_the_same_bytes(weights, tmp_path):
    bundles = [
        build_bundle(
            BuildRequest("tiny-ladeda", (weights,), "wildrf", out=tmp_path / str(number)),
            quietly,
        )
        for number in range(2)
    ]
    assert bundles[0].hashes == bundles[1].hashes
    text = (tmp_path / "0" / "model.onnx").read_bytes()
    assert str(Path(__file__).resolve().parents[2]).encode() not in text  # no builder's folders


def test_a_checkpoint_of_another_detector_names_the_keys(weights, tmp_path):
    request = BuildRequest("npr", (weights,), out=tmp_path / "bundle")
    with pytest.raises(CheckpointError, match=r"missing.*unexpected|unexpected.*missing"):
        build_bundle(request, quietly)
    assert list(tmp_path.iterdir()) == []


FIXED = [spec.name for spec in detectors().values() if spec.geometry.height]
QUICK = ("ferretnet-s", "rine")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.full]) for name in FIXED],
)
def test_the_builder_of_tensorrt_rtx_accepts_every_graph_of_fixed_size(built, name):
    """Accepted ahead of time; such a plan still compiles its kernels on the GPU."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    bundle = open_bundle(built(name, find_detector(name).variants[0].name))
    plan = compile_plan(bundle.graph, target="sm_86", batch=bundle.batch)
    assert plan.key.target == "sm_86"
    assert len(plan.data) > 10_000


def test_plans_of_the_very_same_graph_are_kept(weights, tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    request = BuildRequest(
        "tiny-ladeda", (weights,), "wildrf", out=tmp_path / "bundle", targets=("sm_86", "sm_120")
    )
    plans = build_bundle(request, quietly).plans
    assert [path.name.split("-")[3] for path in sorted(plans.glob("*.plan"))] == ["sm_120", "sm_86"]
    before = {path.name: path.read_bytes() for path in plans.iterdir()}
    build_bundle(replace(request, targets=()), quietly)
    assert {path.name: path.read_bytes() for path in plans.iterdir()} == before
    other = replace(request, variant="forensynth", targets=())
    build_bundle(other, quietly)  # another front end
    assert not plans.exists()


@pytest.mark.full
def test_ten_crops_are_compiled_as_ten_images(synthetic_files, tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    head, tower = synthetic_files("univfd", "progan")
    request = BuildRequest(
        "univfd", (head,), backbone=tower, ten_crop=True, out=tmp_path / "bundle", batch=2,
        targets=("sm_86",),
    )  # fmt: skip
    (record,) = build_bundle(request, quietly).plans.glob("*.json")
    assert json.loads(record.read_text())["key"]["batch"] == 20


def test_a_wrong_file_is_told_before_a_variant_is_asked_for(synthetic_weights, tmp_path):
    other = synthetic_weights("npr", "npr")
    request = BuildRequest("tiny-ladeda", (other,), out=tmp_path / "bundle")
    with pytest.raises(CheckpointError, match=r"conv1\.weight|missing"):
        build_bundle(request, quietly)


def test_a_folder_that_is_no_bundle_is_not_replaced(weights, tmp_path):
    (tmp_path / "thesis.tex").touch()
    request = BuildRequest("tiny-ladeda", (weights,), "wildrf", out=tmp_path)
    with pytest.raises(InputError, match="is not a bundle"):
        build_bundle(request, quietly)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_decision_is_the_bundles_and_every_score_has_it(weights, tmp_path, pictures):
    plain = BuildRequest("tiny-ladeda", (weights,), "wildrf", out=tmp_path / "plain")
    platt = replace(plain, platt=Decision(2.0, -0.5), out=tmp_path / "platt")
    table = write_rows(tmp_path / "in.csv", map(str, pictures))
    logits = []
    for request in (plain, platt):
        assert build_bundle(request, quietly).decision == request.platt
        assert open_bundle(request.out).decision == request.platt
        run_trtdet("score", "--engine", request.out, table, tmp_path / "out.csv")
        logits.append([float(row[1]) for row in read_rows(tmp_path / "out.csv")[1:]])
    assert logits[1] == [pytest.approx(2.0 * logit - 0.5, rel=1e-6) for logit in logits[0]]


def test_building_says_what_it_does_and_sets_the_default(weights):
    arguments = ("--model", "tiny-ladeda", "--variant", "wildrf", "--weights", weights)
    done = run_trtdet("build", *arguments, "--name", "mine", "--batch", "4")
    folder = Path(done.stdout.strip())
    assert done.stdout == f"{folder}\n"
    assert folder == store.bundle_folder("mine") == store.default_bundle()
    stages = [line.split()[0] for line in done.stderr.splitlines()]
    assert stages == ["weights", "reference", "export", "simplify", "compare"]
    bundle = open_bundle(folder)
    assert (bundle.name, bundle.batch, bundle.variant) == ("mine", 4, "wildrf")
    assert bundle.checkpoint["released"] is False
    assert "not a released checkpoint" in bundle.trained_on
    assert bundle.drift["max_relative"] <= bundle.tolerance

    run_trtdet("build", *arguments, "--name", "other", "--no-default")
    assert store.default_bundle() == folder
    assert store.stored_bundles() == ["mine", "other"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nrp", "--weights", "x.pth"], "Did you mean npr"),
        (["--model", "npr", "--weights", "no.pth"], "no.pth"),
        (["--model", "npr", "--weights", "no.pth", "--target", "sm_42"], "it offers"),
        (["--model", "npr", "--weights", "no.pth", "--name", "../up"], "cannot name a bundle"),
        (["--model", "npr", "--weights", "no.pth", "--geometry", "nativ"], "Did you mean native"),
        (["--model", "npr", "--weights", "no.pth", "--views", "ten-crop"],
         "ten crops have no place"),
        (["--model", "npr", "--weights", "no.pth", "--platt", "0", "1"],
         "--platt: a decision needs"),
        (["--model", "aligned", "--weights", "no.pth", "--batch", "2"], "leave --batch out"),
        (["--model", "aligned", "--weights", "no.pth", "--tile", "64"], "--tile 64: tiles of 64"),
        (["--model", "npr,aligned", "--weights", "no.pth"], "trtdet ensemble"),
        (["--model", "rine,univfd", "--platt", "2", "1", "--weights", "n", "--weights", "n",
          "--backbone", "no"],
         "--platt calibrates one logit"),
    ],
)  # fmt: skip
def test_wrong_options_are_one_clear_line(arguments, message):
    said = refusal("build", *arguments)
    assert message in said
    assert "\n" not in said


def test_a_wrong_option_is_said_without_a_traceback():
    done = run_trtdet("build", "--model", "nrp", "--weights", "x.pth", check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Did you mean npr" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_interrupting_a_build_leaves_no_half_bundle(weights, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "trtdet", "build", "--model", "tiny-ladeda", "--variant", "wildrf",
         "--weights", str(weights), "--out", str(tmp_path / "bundle")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    while not (line := process.stderr.readline()).startswith("export"):
        assert line, "the build ended before it exported"
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert out == ""
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
