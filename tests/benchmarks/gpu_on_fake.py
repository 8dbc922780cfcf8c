"""What the tests of a run on a GPU share: the GPU made of the CPU, a bench, a bundle for it."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

from tests.engine.fake_gpu import Fake, install, plan_of
from trtdet.benchmarks import gpu_clock, gpu_compiled, gpu_driver, gpu_kernels
from trtdet.benchmarks.gpu_record import Record, Row, SectionRecord
from trtdet.benchmarks.gpu_section import Bench, Request
from trtdet.engine.bundle import GRAPH, INPUT_NAME, Bundle, open_bundle
from trtdet.engine.plan_key import PlanKey
from trtdet.engine.plans import Plan, write_plan


def install_gpu(monkeypatch) -> Fake:
    """The fake with what only benchmarks use of pycuda, a compiler, and clocks that run short."""
    fake = install(monkeypatch)
    fake.driver.memcpy_dtod_async = lambda target, source, size, stream: stream.put(
        lambda: ctypes.memmove(target, source, size)
    )
    for module in (gpu_kernels, gpu_driver):
        monkeypatch.setattr(module, "compile_cubin", lambda _arch: b"cubin")
    monkeypatch.setattr("trtdet.engine.kernels.compile_cubin", lambda _arch: b"cubin")
    monkeypatch.setattr(gpu_clock, "_ROUND_S", 0.005)
    monkeypatch.setattr(gpu_clock, "_ROUNDS", 2)
    return fake


def make_bench(folder: Path, **request) -> Bench:
    """A section that is running in this process."""
    record, section = Record(folder), SectionRecord("Some")
    record.sections["some"] = section
    return Bench(Request(folder, **request), record, section)


def place_bundle(small_bundle: Path, bench: Bench, monkeypatch) -> Bundle:
    """A copy where `gpu_bundles` puts it, which is compiled for the fake when it is asked for."""
    folder = bench.request.work / "bundles" / "small"
    copied = open_bundle(shutil.copytree(small_bundle, folder))
    monkeypatch.setattr(gpu_compiled, "compile_here", _compile)
    return copied


def fake_plan(bundle: Bundle, batch: int = 1) -> bytes:
    """What the fake takes for a plan of the bundle."""
    return plan_of(bundle.graph, {INPUT_NAME: [batch, *bundle.geometry.fixed_size, 3]})


def rows(bench: Bench) -> dict[str, Row]:
    """Every row by its name."""
    return {row.name: row for row in bench.section.rows}


def all_ok(bench: Bench) -> bool:
    """Whether there is none but good ones."""
    return bool(bench.section.rows) and {row.status for row in bench.section.rows} == {"ok"}


def left_open(fake: Fake) -> dict[str, int]:
    """What was not let go of."""
    return {kind: count for kind, count in fake.open.items() if count}


def _compile(bundle: Bundle, batch: int) -> None:
    key = PlanKey("tensorrt", "10.99.0", "sm_86", bundle.hashes[GRAPH], batch, ())
    write_plan(bundle.plans, Plan(key, fake_plan(bundle, batch)))
