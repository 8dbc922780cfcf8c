"""What a bundle gets for a GPU: kernels, the fastest batch, a plan, the gate on it."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tests.engine.fake_gpu import Fake, install, plan_of
from trtdet.build import prepare as preparing
from trtdet.build import sweep
from trtdet.build.prepare import prepare
from trtdet.build.sweep import choose_batch
from trtdet.calibration.gate import Limits
from trtdet.calibration.judged import Judged, write_judged
from trtdet.engine.bundle import GATE, GRAPH, INPUT_NAME, Bundle, load_probes, open_bundle
from trtdet.engine.digest import sha256_file
from trtdet.engine.plan_key import PlanKey
from trtdet.engine.plans import Plan, write_plan
from trtdet.errors import BackendError, DriftError, PrecisionError


@pytest.fixture
def gpu(monkeypatch) -> Fake:
    """A GPU whose builder needs no time, and whose kernels need no compiler."""
    fake = install(monkeypatch)
    for module in (preparing, sweep):
        monkeypatch.setattr(module, "compile_bundle", compile_fake)
    monkeypatch.setattr(preparing, "current_gpu", lambda: ("sm_86", "Fake GPU"))
    monkeypatch.setattr("trtdet.engine.kernels.compile_cubin", lambda _target: b"cubin")
    return fake


@pytest.fixture
def bundle(small_bundle: Path, tmp_path: Path) -> Bundle:
    return open_bundle(shutil.copytree(small_bundle, tmp_path / "mine"))


def compile_fake(bundle: Bundle, _target, batch, **_options) -> Path:
    profile = () if isinstance(batch, int) else (("profile", ",".join(map(str, batch))),)
    key = PlanKey("tensorrt", "10.99.0", "sm_86", bundle.hashes[GRAPH],
                  batch if isinstance(batch, int) else batch[1], profile)  # fmt: skip
    shape = [-1 if profile else batch, *bundle.geometry.fixed_size, 3]
    return write_plan(bundle.plans, Plan(key, plan_of(bundle.graph, {INPUT_NAME: shape})))


def judged(bundle: Bundle, reference: np.ndarray) -> Bundle:
    """As if it had been built in 8 bits, with its probes for the gate's images."""
    probes = load_probes(bundle.path)
    names = [f"{index:064}" for index in range(len(probes.images))]
    write_judged(Judged(names, reference, reference, None), bundle.path)
    report = {
        "verdict": "passed", "gpu": "unverified on a GPU", "limits": asdict(Limits()),
        "images": {"generated": True}, "compared": {"int8": {}},
    }  # fmt: skip
    hashes = {**bundle.hashes, GATE: sha256_file(bundle.path / GATE)}
    return replace(bundle, precision="int8", precision_report=report, hashes=hashes)


class Drawn:
    """One of the gate's images."""

    def __init__(self, pixels: np.ndarray):
        self._pixels = pixels

    def views(self, _geometry) -> np.ndarray:
        return self._pixels[None]


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({1: 100.0, 2: 190.0, 4: 300.0, 8: 305.0}, 4),
        ({1: 100.0}, 1),
        ({1: 100.0, 2: 99.0, 4: 103.1}, 4),
        ({1: 100.0, 2: 99.0, 4: 102.9}, 1),
    ],
)
def test_the_smallest_batch_that_is_as_fast_as_any_is_chosen(rates, best):
    assert choose_batch(rates) == best


def test_kernels_a_plan_of_the_best_batch_and_the_probes(gpu, bundle, monkeypatch):
    monkeypatch.setattr(sweep, "_rate", lambda _bundle, batch: {1: 10.0, 2: 20.0}.get(batch, 20.1))
    said: list[str] = []
    path = prepare(bundle, None, said.append)
    assert [each.name for each in bundle.plans.glob("*.plan")] == [path.name]
    assert "-b2-" in path.name
    assert len(list((bundle.path / "kernels").glob("sm_86-*.cubin"))) == 1
    assert any(
        line.startswith("batch      2; images per second at each: 1: 10, 2: 20") for line in said
    )
    assert any("on the probes: logits within" in line for line in said)


def test_batches_that_do_not_fit_end_the_sweep(gpu, bundle, monkeypatch):
    def rate(_bundle, batch):
        if batch > 4:
            raise BackendError("Fake GPU is out of memory")
        return float(batch)

    monkeypatch.setattr(sweep, "_rate", rate)
    said: list[str] = []
    assert "-b4-" in prepare(bundle, None, said.append).name
    assert any("larger ones do not run: Fake GPU is out of memory" in line for line in said)


def test_the_sweep_really_measures(gpu, bundle, monkeypatch):
    monkeypatch.setattr(sweep, "BATCHES", (1, 2))
    monkeypatch.setattr(sweep, "_TIMED_S", 0.01)
    assert sweep.sweep_batches(bundle, None, None, lambda _line: None) in (1, 2)


def test_without_a_compiler_for_kernels_the_host_resizes(gpu, bundle, monkeypatch):
    def missing(_target):
        raise BackendError("no compiler")

    monkeypatch.setattr("trtdet.engine.kernels.compile_cubin", missing)
    said: list[str] = []
    assert prepare(bundle, 2, said.append).is_file()
    assert any("no compiler. Until then images are resized on the CPU" in line for line in said)


def test_fewer_bits_are_judged_on_the_gpu(gpu, bundle, monkeypatch):
    probes = load_probes(bundle.path)
    monkeypatch.setattr(
        preparing, "gate_images", lambda *_: [Drawn(each) for each in probes.images]
    )
    own = judged(bundle, probes.logits)
    prepare(own, 2, lambda _line: None)
    report = open_bundle(bundle.path).precision_report
    assert report["gpu"] == "not gated: too few images on tensorrt 10.99.0 Fake GPU"
    assert "int8 on tensorrt 10.99.0 Fake GPU" in report["compared"]


def test_a_plan_that_is_off_is_taken_away(gpu, bundle, monkeypatch):
    probes = load_probes(bundle.path)
    monkeypatch.setattr(
        preparing, "gate_images", lambda *_: [Drawn(each) for each in probes.images]
    )
    off = probes.logits + np.float32(100) * np.arange(len(probes.logits))[:, None] ** 2
    with pytest.raises(PrecisionError, match="is not near enough"):
        prepare(judged(bundle, off.astype(np.float32)), 2, lambda _line: None)
    assert list(bundle.plans.glob("*.plan")) == []
    np.savez(bundle.path / "probes.npz", images=probes.images, logits=probes.logits + 1)
    with pytest.raises(DriftError):
        prepare(bundle, 2, lambda _line: None)
    assert list(bundle.plans.iterdir()) == []


def test_images_of_the_user_are_asked_for(gpu, bundle):
    probes = load_probes(bundle.path)
    own = judged(bundle, probes.logits)
    own.precision_report["images"]["generated"] = False
    said: list[str] = []
    prepare(own, 2, said.append)
    assert any("--calibration SET.json" in line for line in said)
