"""From a bundle to a session on a GPU: plans found, missed, compiled and refused."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.engine.fake_gpu import Fake, install, plan_of
from trtdet.engine.backends import TENSORRT, choose_backend, infer, open_session
from trtdet.engine.bundle import GRAPH, INPUT_NAME, Bundle, load_probes, open_bundle
from trtdet.engine.engine import open_engine
from trtdet.engine.kernels import write_kernels
from trtdet.engine.open_tensorrt import open_tensorrt
from trtdet.engine.plan_key import PlanKey
from trtdet.engine.plans import Plan, write_plan
from trtdet.engine.tensorrt import GpuOptions
from trtdet.errors import BackendError, DriftError, PlanMissError


@pytest.fixture
def gpu(monkeypatch) -> Fake:
    return install(monkeypatch)


@pytest.fixture
def bundle(small_bundle: Path, tmp_path: Path) -> Bundle:
    return open_bundle(shutil.copytree(small_bundle, tmp_path / "mine"))


def compile_fake(bundle: Bundle, batch: int | None, **changes) -> Path:
    batch = batch or 4
    key = {
        "flavour": "tensorrt", "version": "10.99.0", "target": "sm_86",
        "graph_sha256": bundle.hashes[GRAPH], "batch": batch * bundle.geometry.views, "options": (),
    }  # fmt: skip
    shape = [batch * bundle.geometry.views, *bundle.geometry.fixed_size, 3]
    data = plan_of(bundle.graph, {INPUT_NAME: shape})
    return write_plan(bundle.plans, Plan(PlanKey(**{**key, **changes}), data))


def test_the_newest_plan_gives_the_batch(gpu, bundle):
    compile_fake(bundle, 3)
    probes = load_probes(bundle.path)
    backend, rejected = choose_backend("auto")
    assert (backend.name, rejected) == (TENSORRT, [])
    session, drift = open_session(backend, bundle)
    with closing(session):
        assert session.batch == 3
        logits = infer(session, [image[None] for image in probes.images])
    assert drift.max_relative < 1e-3
    np.testing.assert_allclose(logits, probes.logits, atol=1e-3)


def test_a_miss_compiles_and_says_so(gpu, bundle):
    said: list[str] = []
    asked = []

    def compile_it(which: Bundle, batch: int | None, _device: int) -> None:
        asked.append((which.name, batch))
        compile_fake(which, batch)

    options = GpuOptions(on_miss=compile_it, say=said.append)
    open_tensorrt(bundle, batch=2, options=options).close()
    open_tensorrt(bundle, batch=2, options=options).close()
    assert asked == [(bundle.name, 2)]
    assert said[0].startswith("no plan for tensorrt 10.99.0 on sm_86, batches of 2: there is none")


def test_without_a_builder_a_miss_says_what_changed(gpu, bundle):
    compile_fake(bundle, 2, version="10.3.0")
    with pytest.raises(PlanMissError, match=r"10\.3\.0 there, 10\.99\.0 here.*trtdet compile"):
        open_tensorrt(bundle, batch=2)
    assert gpu.open["context"] == 0


def test_a_foreign_plan_is_loaded_on_trust_alone(gpu, bundle, monkeypatch, tmp_path):
    compile_fake(bundle, 2)
    monkeypatch.setenv("TRTDET_HOME", str(tmp_path / "another store"))
    said: list[str] = []
    with pytest.raises(PlanMissError):
        open_tensorrt(bundle, batch=2, options=GpuOptions(say=said.append))
    assert any("was not compiled here: it is code" in line for line in said)
    open_tensorrt(bundle, batch=2, options=GpuOptions(trust=True)).close()


def test_kernels_that_do_not_load_leave_the_resizing_to_the_host(gpu, bundle, monkeypatch):
    monkeypatch.setattr("trtdet.engine.kernels.compile_cubin", lambda _target: b"cubin")
    write_kernels(bundle.path, "sm_86")
    compile_fake(bundle, 2)
    gpu.bad_cubin = True
    said: list[str] = []
    open_tensorrt(bundle, batch=2, options=GpuOptions(say=said.append)).close()
    assert any("kernel image is invalid): images are resized on the CPU" in line for line in said)
    gpu.bad_cubin = False
    said.clear()
    open_tensorrt(bundle, batch=2, options=GpuOptions(say=said.append)).close()
    assert said == []


def test_wrong_scores_are_refused(gpu, bundle):
    path = compile_fake(bundle, 2)
    probes = load_probes(bundle.path)
    np.savez(bundle.path / "probes.npz", images=probes.images, logits=probes.logits + 1)
    backend, _ = choose_backend(TENSORRT)
    with pytest.raises(DriftError, match="drifts by"):
        open_session(backend, bundle)
    assert gpu.open["context"] == 0
    assert path.is_file()


def test_an_engine_scores_with_it(gpu, bundle):
    compile_fake(bundle, 2)
    backend, _ = choose_backend(TENSORRT)
    with open_engine(backend, bundle) as engine:
        assert (engine.batch, engine.slots) == (2, 3)
        assert engine.name == "tensorrt 10.99.0 Fake GPU"


def test_every_missing_piece_is_named(bundle):
    with pytest.raises(BackendError) as error:
        choose_backend(TENSORRT)
    message = str(error.value)
    assert "no backend can run here (tensorrt: " in message
    for piece in ("NVIDIA driver: it does not load", "pycuda: ", "GPU: "):
        assert piece in message
