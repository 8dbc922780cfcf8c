"""What a bundle gets for a GPU: kernels, the fastest batch, a plan, the gate on it."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tests.engine.fake_gpu import Fake, install, plan_of
from trtdet.build import judge_plan as judging
from trtdet.build import prepare as preparing
from trtdet.build import sweep
from trtdet.build.prepare import prepare
from trtdet.build.sweep import choose_batch
from trtdet.calibration.gate import Limits
from trtdet.calibration.judged import Judged, write_judged
from trtdet.engine.bundle import GATE, GRAPH, INPUT_NAME, Bundle, load_probes, open_bundle
from trtdet.engine.digest import sha256_file
from trtdet.engine.import_openvino import ov
from trtdet.engine.plan_key import PlanKey
from trtdet.engine.plans import (
    Plan,
    WantedPlan,
    find_plan,
    stored_plan,
    stored_plans,
    writable_folder,
    write_plan,
)
from trtdet.engine.store import store_folder
from trtdet.errors import BackendError, DriftError, InputError, PrecisionError


@pytest.fixture
def gpu(monkeypatch) -> Fake:
    """A GPU whose builder needs no time, and whose kernels need no compiler."""
    fake = install(monkeypatch)
    monkeypatch.setattr(preparing, "compile_bundle", compile_fake)
    monkeypatch.setattr(sweep, "compile_plan", compile_trial)
    monkeypatch.setattr(preparing, "current_gpu", lambda _index: ("sm_86", "Fake GPU"))
    monkeypatch.setattr("trtdet.engine.kernels.compile_cubin", lambda _target: b"cubin")
    return fake


@pytest.fixture
def bundle(small_bundle: Path, tmp_path: Path) -> Bundle:
    return open_bundle(shutil.copytree(small_bundle, tmp_path / "mine"))


def fake_plan(graph: Path, batch) -> Plan:
    profile = () if isinstance(batch, int) else (("profile", ",".join(map(str, batch))),)
    key = PlanKey("tensorrt", "10.99.0", "sm_86", sha256_file(graph),
                  batch if isinstance(batch, int) else batch[1], profile)  # fmt: skip
    height, width, _ = ov.Core().read_model(graph).input(INPUT_NAME).partial_shape[1:]
    shape = [-1 if profile else batch, height.get_length(), width.get_length(), 3]
    return Plan(key, plan_of(graph, {INPUT_NAME: shape}))


def compile_fake(bundle: Bundle, _target, batch, *, force=False, **_options) -> Path:
    plan = fake_plan(bundle.graph, batch)
    there = None if force else stored_plan(bundle.plans, plan.key)
    return there or write_plan(writable_folder(bundle.plans, plan.key.graph_sha256), plan)


def compile_trial(graph: Path, *, batch, **_options) -> Plan:
    return fake_plan(graph, batch)


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
    monkeypatch.setattr(
        sweep, "_rate", lambda _bundle, batch, _: {1: 10.0, 2: 20.0}.get(batch, 20.1)
    )
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
    def rate(_bundle, batch, _options):
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
    monkeypatch.setattr(judging, "gate_images", lambda *_: [Drawn(each) for each in probes.images])
    own = judged(bundle, probes.logits)
    prepare(own, 2, lambda _line: None)
    report = open_bundle(bundle.path).precision_report
    verdict = "not gated: too few images on tensorrt 10.99.0 Fake GPU"
    assert report["gpu"] == verdict
    (plan,) = stored_plans(bundle.plans)
    assert plan.verdict == verdict
    np.testing.assert_allclose(plan.probe_logits, probes.logits, atol=1e-3)
    assert "int8 on tensorrt 10.99.0 Fake GPU" in report["compared"]


def test_a_plan_that_is_off_is_taken_away(gpu, bundle, monkeypatch):
    probes = load_probes(bundle.path)
    monkeypatch.setattr(judging, "gate_images", lambda *_: [Drawn(each) for each in probes.images])
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


def nudge_probes(bundle: Bundle, tolerances: float) -> np.ndarray:
    """The bundle's probes as if its own engine gave others; these."""
    probes = load_probes(bundle.path)
    logits = probes.logits + np.float32(tolerances * bundle.tolerance) * (1 + abs(probes.logits))
    np.savez(bundle.path / "probes.npz", images=probes.images, logits=logits.astype(np.float32))
    return probes.logits


def test_what_the_gate_passes_the_probes_do_not_refuse(gpu, bundle, monkeypatch):
    """In fewer bits another engine is further from the probes than rounding explains."""
    images = [Drawn(each) for each in load_probes(bundle.path).images]
    logits = nudge_probes(bundle, 50)
    own = judged(bundle, logits)
    monkeypatch.setattr(judging, "gate_images", lambda *_: images)
    said: list[str] = []
    prepare(own, 2, said.append)
    (stored,) = stored_plans(bundle.plans)
    np.testing.assert_allclose(stored.probe_logits, logits, atol=1e-3)
    assert any("(the gate decides)" in line for line in said)


@pytest.mark.parametrize(("tolerances", "refused"), [(3, False), (8, True)])
def test_without_the_gate_probes_may_be_a_few_tolerances_off(
    gpu, bundle, monkeypatch, tolerances, refused
):
    own = judged(bundle, nudge_probes(bundle, tolerances))
    monkeypatch.setattr(judging, "gate_images", lambda *_: None)
    if refused:
        with pytest.raises(DriftError):
            prepare(own, 2, lambda _line: None)
        assert list(stored_plans(bundle.plans)) == []
    else:
        prepare(own, 2, lambda _line: None)
        (plan,) = stored_plans(bundle.plans)
        assert plan.verdict == "not judged on this GPU"
        prepare(own, 2, lambda _line: None)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, InputError])
def test_a_new_plan_that_was_not_judged_to_the_end_goes(gpu, bundle, monkeypatch, error):
    judge = preparing.judge_plan
    own = judged(bundle, load_probes(bundle.path).logits)

    def broken(*_arguments):
        raise error("stopped")

    monkeypatch.setattr(preparing, "judge_plan", broken)
    with pytest.raises(error):
        prepare(own, 2, lambda _line: None)
    assert list(bundle.plans.iterdir()) == []
    monkeypatch.setattr(preparing, "judge_plan", judge)
    monkeypatch.setattr(judging, "gate_images", lambda *_: None)
    path = prepare(own, 2, lambda _line: None)
    monkeypatch.setattr(preparing, "judge_plan", broken)
    with pytest.raises(error):
        prepare(own, 2, lambda _line: None)
    assert path.is_file()  # it was there, and judged
    with pytest.raises(error):
        prepare(own, 2, lambda _line: None, force=True)
    assert not path.exists()


def test_the_plan_that_was_compiled_is_the_one_that_is_judged(gpu, bundle):
    """Not a newer one, which does not even load."""
    path = prepare(bundle, 2, lambda _line: None)
    plan = fake_plan(bundle.graph, 2)
    newer = Plan(replace(plan.key, options=(("level", "5"),)), b"no plan")
    os.utime(path, (0, 0))
    other = write_plan(bundle.plans, newer)
    assert find_plan(bundle.plans, wanted(bundle)).path == other
    assert prepare(bundle, 2, lambda _line: None) == path


def wanted(bundle: Bundle) -> WantedPlan:
    return WantedPlan("tensorrt", "10.99.0", "sm_86", bundle.hashes[GRAPH], 2)


@pytest.mark.parametrize(("compiles", "runs"), [(64, 64), (16, 64), (64, 4), (16, 1)])
def test_a_trial_that_does_not_fit_is_for_fewer_images(gpu, bundle, monkeypatch, compiles, runs):
    profiles, folders = [], []

    def compiled(graph, *, batch, **_options):
        if batch[2] > compiles:
            raise BackendError("out of memory while it compiles")
        profiles.append(batch)
        return fake_plan(graph, batch)

    def rate(_bundle, batch, options):
        folders.append(options.plan.parent)
        assert options.plan.is_file()
        assert not bundle.plans.exists()
        if profiles[-1][2] > runs:
            raise BackendError("out of memory")
        return float(batch)

    monkeypatch.setattr(sweep, "compile_plan", compiled)
    monkeypatch.setattr(sweep, "_rate", rate)
    largest = min(compiles, runs)
    assert sweep.sweep_batches(bundle, None, None, lambda _line: None) == largest
    assert profiles[-1] == (1, min(16, largest), largest)
    assert all(store_folder() in folder.parents for folder in folders)
    assert not any(folder.exists() for folder in folders)


def test_a_gpu_that_runs_nothing_says_so(gpu, bundle, monkeypatch):
    def rate(*_arguments):
        raise BackendError("out of memory")

    monkeypatch.setattr(sweep, "_rate", rate)
    with pytest.raises(BackendError, match="out of memory"):
        sweep.sweep_batches(bundle, None, None, lambda _line: None)
    assert list(store_folder().glob(".trial-*")) == []


def test_one_process_prepares_a_graph_for_a_gpu(gpu, bundle, monkeypatch):
    """Whoever holds the lock has it while it sweeps, compiles and judges."""
    held = []
    for name in ("sweep_batches", "compile_bundle", "judge_plan"):
        real = getattr(preparing, name)

        def step(*arguments, real=real, **options):
            held.extend((store_folder() / "locks").glob("prepare-*"))
            return 2 if real is sweep.sweep_batches else real(*arguments, **options)

        monkeypatch.setattr(preparing, name, step)
    prepare(bundle, None, lambda _line: None)
    assert len(held) == 3
    assert len(set(held)) == 1
    assert list((store_folder() / "locks").iterdir()) == []


def test_kernels_that_the_gpu_refuses_go(gpu, bundle, monkeypatch):
    def refuse(_cubin):
        raise gpu.driver.Error("no kernel image is available")

    monkeypatch.setattr(gpu.driver, "module_from_buffer", refuse)
    said: list[str] = []
    prepare(bundle, 2, said.append)
    assert list((bundle.path / "kernels").iterdir()) == []
    assert any("does not load sm_86-" in line and "resized on the CPU" in line for line in said)


def test_force_compiles_the_kernels_again(gpu, bundle, monkeypatch):
    prepare(bundle, 2, lambda _line: None)
    monkeypatch.setattr("trtdet.engine.kernels.compile_cubin", lambda _target: b"another")
    (cubin,) = (bundle.path / "kernels").iterdir()
    prepare(bundle, 2, lambda _line: None)
    assert cubin.read_bytes() == b"cubin"
    prepare(bundle, 2, lambda _line: None, force=True)
    assert cubin.read_bytes() == b"another"


def test_the_starter_bundle_stays_as_it_was_installed(gpu, bundle, monkeypatch):
    monkeypatch.setattr("trtdet.engine.built.starter_bundle", lambda: bundle.path)
    images = [Drawn(each) for each in load_probes(bundle.path).images]
    own = judged(bundle, load_probes(bundle.path).logits)
    monkeypatch.setattr(judging, "gate_images", lambda *_: images)
    before = {each: each.read_bytes() for each in bundle.path.rglob("*")}
    said: list[str] = []
    path = prepare(own, 2, said.append)
    assert {each: each.read_bytes() for each in bundle.path.rglob("*")} == before
    assert store_folder() in path.parents
    assert len(list((store_folder() / "kernels").iterdir())) == 1
    assert any("stays as it is" in line for line in said)


def test_a_linked_record_is_not_written(gpu, bundle, monkeypatch, tmp_path):
    mine = (bundle.path / "bundle.json").rename(tmp_path / "mine.json")
    (bundle.path / "bundle.json").symlink_to(mine)
    images = [Drawn(each) for each in load_probes(bundle.path).images]
    own, before = judged(bundle, load_probes(bundle.path).logits), mine.read_bytes()
    monkeypatch.setattr(judging, "gate_images", lambda *_: images)
    prepare(own, 2, lambda _line: None)
    assert mine.read_bytes() == before
