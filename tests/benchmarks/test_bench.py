"""A bench: its sums are right, it finds what is slow, and its page opens."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import types
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

from tests.chromium import open_browser
from trtdet.benchmarks import bench_stages, gauges
from trtdet.benchmarks.bench import Request, run_bench
from trtdet.benchmarks.bench_explain import explain
from trtdet.benchmarks.bench_network import NetworkRate, Setting, summarise, time_network
from trtdet.benchmarks.bench_page import bench_page
from trtdet.benchmarks.bench_pipeline import WholeRate, time_whole
from trtdet.benchmarks.bench_text import PERCENTILES, as_markdown, doubts, prefixed, wait
from trtdet.benchmarks.cpu_peak import measure_peak
from trtdet.benchmarks.steady import second_half_over_first, steady_rate
from trtdet.benchmarks.work import work_of
from trtdet.engine import openvino
from trtdet.engine.backends import choose_backend
from trtdet.engine.bundle import open_bundle
from trtdet.engine.machine import EIGHT_BIT, core_count, read_machine
from trtdet.errors import InputError

STAGES = ["decode", "geometry", "copy", "compute", "write"]


def quick(folder: Path, pictures: list[Path], **options) -> dict:
    """A record of a second."""
    backend, _ = choose_backend("openvino")
    request = Request(open_bundle(folder), backend, pictures, False, 1.0, (1,), (1,), (1,))
    return run_bench(request, say=lambda _line: None)


@pytest.fixture(scope="module")
def record(small_bundle, pictures) -> dict:
    backend, _ = choose_backend("openvino")
    request = Request(
        open_bundle(small_bundle), backend, pictures, False, 4.0, (1, 2), (1, 2), (1, 2)
    )
    return run_bench(request, say=lambda _line: None)


def test_latencies_and_rate_of_known_times():
    # Two streams, 10 ms each, the last two 20 ms: 10 batches of 4 images.
    ends = [(0.01 * (i // 2), 0.01 * (i // 2) + 0.01) for i in range(8)] + [(0.04, 0.06)] * 2
    found = summarise(ends, Setting(4, 2))
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == pytest.approx((10, 20, 20))
    assert found.images_per_s == pytest.approx(4 * 2 / 0.01)  # the last ones left out
    assert found.halves == pytest.approx(1.0)


def test_a_machine_that_slows_down_is_seen():
    times = [*np.arange(1, 21) * 0.1, *(2.0 + np.arange(1, 11) * 0.2)]
    assert steady_rate(times[:20], range(20)) == pytest.approx(10.0)
    assert second_half_over_first(times, range(30)) == pytest.approx(0.5)
    threes = np.repeat([1.0, 2.0, 3.0, 4.0], 3)  # three streams that end together are steady
    assert second_half_over_first(threes, range(12)) == pytest.approx(1.0)
    assert second_half_over_first(times[:7], range(7)) is None
    assert second_half_over_first(np.repeat([1.0, 2.0, 3.0], 4), range(12), 4) is None


class InStep:
    """An engine of two streams that take a fixed time each and end together, as real ones do."""

    slots, batch, columns = 8, 1, ("logit",)

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.lanes = [types.SimpleNamespace(session=self)]
        self.waiting: SimpleQueue[int] = SimpleQueue()
        self.together = threading.Barrier(2)
        for _stream in range(2):
            threading.Thread(target=self.work, daemon=True).start()

    def work(self) -> None:
        while True:
            slot = self.waiting.get()
            with suppress(threading.BrokenBarrierError):  # the last one has nobody beside it
                self.together.wait(4 * self.seconds)
            time.sleep(self.seconds)
            self.on_done(slot)

    def start(self, slot: int) -> None:
        self.waiting.put(slot)

    def load(self, *_place) -> None: ...

    def blank(self, *_place) -> None: ...

    def check(self) -> None: ...

    def logits(self, _slot: int):
        return np.zeros((1, 1), np.float32)


def test_a_pipeline_has_the_rate_of_its_network(pictures):
    found = time_whole(InStep(0.1), pictures, 1, 0.2)
    # 16 rows are counted, in 8 pairs: from the first end of them to the last it would be 15 in 7
    # steps, 7 % too many. Sleeps can only be longer than asked for.
    assert 0.6 * 20 < found.images_per_s < 1.05 * 20
    assert found.rows == 15


def test_busy_adds_up_and_names_the_bottleneck():
    alone = {"decode": 0.004, "geometry": 0.001, "copy": 0.0, "write": 0.0}
    network = [NetworkRate(1, 1, 9, 100.0, 10, 10, 10, 1.0)]
    whole = [WholeRate(1, 1, 9, 60.0, 1.0, 1, 1, 1, dict.fromkeys(alone, 5.0))]
    found = explain(alone, network, whole)
    cores = core_count()
    assert found["stages"]["compute"]["busy"] == pytest.approx(0.6)
    assert found["stages"]["decode"]["busy"] == pytest.approx(0.24 / cores)
    assert found["share_of_ceiling"] == pytest.approx(0.6 + 0.3 / cores)
    assert found["ceiling_images_per_s"] == pytest.approx(60 / (0.6 + 0.3 / cores))
    assert found["bottleneck"]["stage"] == "compute"


def test_beside_a_gpu_the_fuller_of_the_two_is_the_limit():
    alone = {"decode": 0.01, "copy": 0.001, "write": 0.001}
    network = [NetworkRate(1, 1, 9, 400.0, 1, 1, 1, 1)]
    for decode, stage in ((0.001, "compute"), (0.1, "decode")):
        alone["decode"] = decode
        rate = min(390.0, 0.9 * core_count() / sum(alone.values()))
        found = explain(alone, network, [WholeRate(1, 1, 9, rate, 1.0, 1, 1, 1, {})], on_gpu=True)
        assert found["bottleneck"]["stage"] == stage
        assert 0.5 < found["share_of_ceiling"] <= 1.0
        assert "geometry" not in found["stages"]
        assert found["stages"]["decode"]["in_pipeline_us"] is None


def test_a_percentile_needs_its_batches():
    row = {"runs": 99, "batch": 4, "p50_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0}
    assert [wait(row, name) for name in PERCENTILES] == ["1 ms", "2 ms", "-"]
    del row["runs"]
    row["rows"] = 39  # which are nine batches and a part
    assert [wait(row, name) for name in PERCENTILES] == ["1 ms", "-", "-"]


def test_what_is_kept_in_memory_is_bounded(small_bundle, pictures, monkeypatch):
    bundle = open_bundle(small_bundle)
    monkeypatch.setattr(bench_stages, "_MOST_BYTES", 1)
    assert bench_stages.read_material(pictures, bundle).paths == (pictures[0],)


def test_a_record_is_whole_and_in_proportion(record):
    json.dumps(record)
    assert list(record["stages"]) == STAGES
    assert {(each["batch"], each["streams"]) for each in record["network"]} <= {
        (1, 1), (1, 2), (2, 1), (2, 2)
    }  # fmt: skip
    for each in record["network"]:
        assert each["p50_ms"] <= each["p90_ms"] <= each["p99_ms"]
        assert each["runs"] >= 4 * each["streams"]
        # What streams give together is what their latencies say; others share the cores.
        by_latency = 1e3 * each["batch"] * each["streams"] / each["p50_ms"]
        assert each["images_per_s"] == pytest.approx(by_latency, rel=0.7)
    for each in record["whole"]:
        # A row is on its way at least as long as its batch is in the network.
        assert 0 < each["p50_ms"] <= each["p90_ms"] <= each["p99_ms"] < 4000
        assert each["p50_ms"] > 0.5 * min(each["p50_ms"] for each in record["network"])
    for stage in ("decode", "geometry", "copy", "write"):
        assert record["stages"][stage]["alone_us"] > 0
        assert record["stages"][stage]["in_pipeline_us"] > 0
    assert record["work"]["multiply_adds_per_s"] == pytest.approx(
        record["work"]["multiply_adds"] * max(each["images_per_s"] for each in record["network"])
    )
    assert 0 < record["work"]["share_of_peak"] < 1.5


def test_a_stage_that_was_made_slow_is_the_bottleneck(small_bundle, pictures, monkeypatch):
    sound = openvino.apply_geometry

    def slow(geometry, rgb):
        time.sleep(0.03)
        return sound(geometry, rgb)

    assert quick(small_bundle, pictures)["bottleneck"]["stage"] != "geometry"
    for module in (openvino, bench_stages):
        monkeypatch.setattr(module, "apply_geometry", slow)
    found = quick(small_bundle, pictures)
    assert found["bottleneck"]["stage"] == "geometry"
    assert found["stages"]["geometry"]["alone_us"] >= 30_000
    assert found["stages"]["geometry"]["in_pipeline_us"] >= 30_000


def test_native_resolution_is_measured_image_by_image(built, small_pictures):
    folder = built("npr", "progan-4class", geometry="native", name="native")
    found = quick(folder, small_pictures)
    assert {each["batch"] for each in found["network"]} == {1}
    request = Request(open_bundle(folder), choose_backend("openvino")[0], [], False, 1.0, (1, 4))
    with pytest.raises(InputError, match="takes one image at a time"):
        run_bench(request, say=lambda _line: None)
    bundle = open_bundle(folder)
    assert work_of(bundle, 2.0) == pytest.approx(2 * work_of(bundle, 1.0), rel=1e-6)


def test_what_there_was_no_time_for_is_named(small_bundle, pictures):
    backend, _ = choose_backend("openvino")
    request = Request(open_bundle(small_bundle), backend, pictures, False, 1.0, (1, 2, 3, 4, 5))
    found = run_bench(request, say=lambda _line: None)
    measured = {(each["batch"], each["streams"]) for each in found["network"]}
    assert found["left_out"]
    assert len(measured) + sum("network" in each for each in found["left_out"]) == 5 * len(
        {1, core_count()}
    )


def test_the_peak_is_one_of_8_bits_where_the_machine_has_them():
    exact, eight = measure_peak("fp32", 0.3), measure_peak("int8", 0.3)
    assert exact.best > 1e8
    features = read_machine().features
    if any(features.get(name) for name in EIGHT_BIT):
        assert eight.best > 1.3 * exact.best


def test_a_network_is_timed_for_as_long_as_asked(small_bundle, pictures):
    backend, _ = choose_backend("openvino")
    bundle = open_bundle(small_bundle)
    material = bench_stages.read_material(pictures, bundle)
    found = time_network(backend, bundle, Setting(1, 1), material.views, 0.5)
    assert found.runs / found.images_per_s == pytest.approx(0.4, rel=0.5)


def test_markdown_and_page_say_the_same(record, tmp_path):
    text = as_markdown(record)
    assert text.startswith("# small (fp32) on openvino ")
    assert "## Stages" in text
    page = bench_page(record)
    for word in ("images/s from files to a table", record["bottleneck"]["stage"], "AVX2"):
        assert word in page
    assert page.count("<svg") >= 9  # four charts, five bars
    assert "http" not in page.replace("http-equiv", "")


def test_a_busy_machine_is_said(record):
    busy = {**record, "gauges": {**record["gauges"], "other processes": 0.5}}
    assert any("Other processes took 50% of the cores" in each for each in doubts(busy))
    quiet = {**record, "gauges": {"other processes": 0.0}, "network": [], "whole": []}
    assert doubts(quiet) == []


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_opens_without_a_complaint(record, tmp_path, width):
    path = tmp_path / "bench.html"
    path.write_text(bench_page(record), encoding="utf-8")
    with open_browser() as browser:
        browser.open(path, width=width)
        assert browser.complaints == []
        assert browser.evaluate("document.documentElement.scrollWidth") == width


ORIN = (
    "11-22-2026 00:00:00 RAM 3214/30536MB (lfb 5x4MB) SWAP 0/15268MB (cached 0MB) CPU [3%@729,2%@"
    "729,off,off] EMC_FREQ 0%@2133 GR3D_FREQ 61%@[611] CPU@47.3C SOC2@43.5C tj@47.3C SOC0@44.4C "
    "VDD_GPU_SOC 3202mW/3202mW VDD_CPU_CV 400mW/400mW VIN_SYS_5V0 4000mW/4000mW"
)


def test_an_older_tegrastats_gives_power_without_a_unit():
    nano = "GR3D_FREQ 0% PLL@24C POM_5V_IN 2109/2110 POM_5V_GPU 82/82"
    found = gauges.read_tegrastats(nano)
    assert (found["POM_5V_IN W"], found["POM_5V_GPU W"]) == (2.109, 0.082)


def test_tegrastats_is_read():
    found = gauges.read_tegrastats(ORIN)
    assert found["CPU °C"] == 47.3
    assert found["GPU % busy"] == 61
    assert found["VDD_GPU_SOC W"] == 3.202
    assert found["VIN_SYS_5V0 W"] == 4.0


def test_gauges_are_read_or_say_why_not(tmp_path, monkeypatch):
    program = tmp_path / "tegrastats"
    program.write_text(f"#!/bin/sh\nwhile true; do echo '{ORIN}'; sleep 0.05; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with gauges.gauges() as found:
        time.sleep(0.8)
    assert found["Jetson (tegrastats)"]["VDD_CPU_CV W"]["median"] == 0.4
    assert found["GPU (NVML)"] == "not available: pip install nvidia-ml-py"
    assert 0.0 <= found["other processes"] <= 1.0


def test_nvml_is_asked_for_what_the_board_knows(monkeypatch):
    class NVMLError(Exception):
        pass

    def unknown(*_arguments):
        raise NVMLError("Not Supported")

    asked = types.SimpleNamespace(
        NVMLError=NVMLError, NVML_CLOCK_SM=1, NVML_CLOCK_MEM=2, NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None, nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetPowerUsage=lambda _gpu: 123_400,
        nvmlDeviceGetClockInfo=lambda _gpu, which: 1000 * which,
        nvmlDeviceGetTemperature=unknown,
        nvmlDeviceGetUtilizationRates=lambda _gpu: types.SimpleNamespace(gpu=97),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", asked)
    with gauges.gauges() as found:
        time.sleep(0.6)
    gpu = found["GPU (NVML)"]
    assert gpu["W"] == {"median": 123.4, "low": 123.4, "high": 123.4}
    assert gpu["memory MHz"]["median"] == 2000
    assert "°C" not in gpu


def test_prefixes():
    assert [prefixed(each) for each in (3, 68_300_000, 1.44e12)] == ["3", "68.3 M", "1.44 T"]
