"""The TensorRT sessions on a GPU made of the CPU, whose networks are the bundles' own."""

from __future__ import annotations

import gc
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.engine.fake_gpu import Fake, install, plan_of
from trtdet.engine import pipeline
from trtdet.engine.backends import choose_backend, compile_graph, infer
from trtdet.engine.bundle import INPUT_NAME, OUTPUT_NAME, Bundle, open_bundle
from trtdet.engine.cuda import Gpu
from trtdet.engine.decode import DEFAULT_MAX_PIXELS, decode_rgb
from trtdet.engine.engine import Engine, Lane
from trtdet.engine.geometry import apply_geometry
from trtdet.engine.loaded_plan import LoadedPlan
from trtdet.engine.table import Row
from trtdet.engine.tensorrt import GpuOptions, TensorRtSession
from trtdet.engine.tensorrt_library import load_library
from trtdet.engine.tensorrt_tiles import TENSORS, TensorRtTileSession
from trtdet.errors import BackendError


@pytest.fixture
def gpu(monkeypatch) -> Fake:
    return install(monkeypatch)


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return open_bundle(small_bundle)


NAMES = (INPUT_NAME, OUTPUT_NAME)


@contextmanager
def loaded(graph: Path, shapes, names=NAMES):
    """A plan; a session that it is given to closes it, nobody else need."""
    device = Gpu()
    try:
        plan = LoadedPlan(load_library("tensorrt"), device, plan_of(graph, shapes), names)
    except BaseException:
        device.close()
        raise
    yield plan


@contextmanager
def opened(bundle: Bundle, *, batch: int = 4, cubin: bytes | None = b"cubin", **options):
    shape = [batch * bundle.geometry.views, *bundle.geometry.fixed_size, 3]
    given = GpuOptions(**{"graph": False, **options})
    with loaded(bundle.graph, {INPUT_NAME: shape}) as plan:
        try:
            session = TensorRtSession(
                plan, bundle.geometry, batch=batch, outputs=1, cubin=cubin, options=given
            )
        except BaseException:
            plan.close()
            raise
        del plan
        with closing(session):
            yield session


class ListSink:
    def __init__(self) -> None:
        self.rows: list[tuple[str, float | None]] = []
        self.failures = 0

    def write(self, filename, logits, reason) -> None:
        self.failures += logits is None
        self.rows.append((filename, None if logits is None else float(*logits)))


def score(bundle: Bundle, session, names, sink: ListSink, threads: int = 3) -> None:
    pipeline.score(
        (Row(index, str(name)) for index, name in enumerate(names)),
        lambda row: Path(row.filename),
        Engine((Lane(session, bundle.decision, bundle),), bundle.outputs),
        sink,
        decode_threads=threads,
    )


def on_the_cpu(bundle: Bundle, paths: list[Path]) -> dict[Path, float]:
    """What OpenVINO gives, one image at a time."""
    backend, _ = choose_backend("openvino")
    graph = compile_graph(backend, bundle.graph, bundle.geometry, bundle.tiling, batch=1)
    with closing(graph) as session:
        images = [decode_rgb(path.read_bytes(), max_pixels=DEFAULT_MAX_PIXELS) for path in paths]
        logits = [infer(session, [apply_geometry(bundle.geometry, each)]) for each in images]
    return {path: float(each[0, 0]) for path, each in zip(paths, logits, strict=True)}


@pytest.mark.parametrize("cubin", [b"cubin", None], ids=["kernels", "host"])
@pytest.mark.parametrize(
    ("batch", "slots", "streams"), [(1, 1, None), (3, 3, None), (4, 3, 1), (8, 5, 2)]
)
def test_rows_come_in_order_with_the_scores_of_one_at_a_time(
    gpu, bundle, pictures, batch, slots, streams, cubin
):
    names = [*pictures, *pictures[::-1], *pictures]
    alone = on_the_cpu(bundle, pictures)
    sink = ListSink()
    with opened(bundle, batch=batch, slots=slots, streams=streams, cubin=cubin) as session:
        score(bundle, session, names, sink)
    assert sink.rows == [(str(name), alone[name]) for name in names]


def test_a_slow_stream_changes_nothing(gpu, bundle, pictures):
    gpu.delay_s = 0.01
    alone = on_the_cpu(bundle, pictures)
    sink = ListSink()
    with opened(bundle, batch=2) as session:
        score(bundle, session, pictures, sink)
    assert sink.rows == [(str(name), alone[name]) for name in pictures]


def test_bad_images_cost_their_rows(gpu, bundle, pictures, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[1].read_bytes()[:100])
    names = [pictures[0], broken, tmp_path / "gone.jpg", pictures[2], *[broken] * 9]
    alone = on_the_cpu(bundle, [pictures[0], pictures[2]])
    sink = ListSink()
    with opened(bundle) as session:
        score(bundle, session, names, sink)
    assert [logit for _, logit in sink.rows] == [alone.get(name) for name in names]


def test_everything_is_let_go_of(gpu, bundle, pictures):
    for _ in range(2):
        with opened(bundle, batch=2) as session:
            infer(session, [np.zeros((1, *bundle.geometry.fixed_size, 3), np.uint8)] * 7)
        del session
    gc.collect()
    assert {kind: count for kind, count in gpu.open.items() if count} == {}
    assert gpu.memory_left == 1 << 34


def test_a_thousand_batches_open_nothing_more(gpu, bundle):
    image = np.zeros((1, *bundle.geometry.fixed_size, 3), np.uint8)
    with opened(bundle, batch=1, streams=2) as session:
        before = dict(gpu.made)
        infer(session, [image] * 1000)
        assert gpu.made == before


def test_a_lost_device_is_one_line_and_keeps_what_was_scored(gpu, bundle, pictures, monkeypatch):
    monkeypatch.setattr(pipeline, "LIVENESS_S", 0.05)
    sink = ListSink()
    with opened(bundle, batch=2, slots=2) as session:
        gpu.fails_after = 3
        with pytest.raises(BackendError, match=r"Fake GPU failed: .*illegal memory") as error:
            score(bundle, session, pictures * 3, sink, threads=1)
        assert "\n" not in str(error.value)
    assert 2 <= len(sink.rows) <= 6
    assert threading.active_count() < 20


@pytest.mark.parametrize("left", [100, 300_000, 1_500_000, 3_000_000])
def test_too_little_memory_names_what_to_do(gpu, bundle, left):
    gpu.memory_left = left
    with pytest.raises(BackendError, match=r"out of memory.*smaller batch") as error, \
         opened(bundle, batch=8):  # fmt: skip
        pass
    del error
    gc.collect()
    assert {kind: count for kind, count in gpu.open.items() if count} == {}
    assert gpu.memory_left == left


def test_a_plan_that_does_not_load_is_told_in_its_own_words(gpu):
    device = Gpu()
    with pytest.raises(BackendError, match=r"cannot load the plan: .*magic tag.*--force"):
        LoadedPlan(load_library("tensorrt"), device, b"no plan", NAMES)
    device.close()


def test_a_plan_of_another_network_is_refused(gpu, bundle):
    with (
        pytest.raises(BackendError, match="the plan has the tensors"),
        loaded(bundle.graph, None, TENSORS),
    ):
        pass
    with loaded(bundle.graph, {INPUT_NAME: [2, *bundle.geometry.fixed_size, 3]}) as plan:
        with pytest.raises(BackendError, match="does not take a batch of shape"):
            TensorRtSession(plan, bundle.geometry, batch=4, outputs=1)
        plan.close()


def test_the_network_is_captured_and_replayed(gpu, bundle, pictures):
    alone = on_the_cpu(bundle, pictures)
    sink = ListSink()
    with opened(bundle, batch=2, graph=True) as session:
        score(bundle, session, pictures, sink)
    assert sink.rows == [(str(name), alone[name]) for name in pictures]
    assert gpu.made["replay"] == len(pictures) // 2 + 3  # each stream tries its own once
    assert gpu.open["graph"] == 0


def test_a_replay_that_does_nothing_is_not_trusted(gpu, bundle, pictures):
    gpu.empty_graphs = True
    said: list[str] = []
    alone = on_the_cpu(bundle, pictures)
    sink = ListSink()
    with opened(bundle, batch=2, graph=True, say=said.append) as session:
        score(bundle, session, pictures, sink)
    assert sink.rows == [(str(name), alone[name]) for name in pictures]
    assert said == ["no CUDA graph: its replay does not give what the network gives"]


def test_a_graph_that_cannot_be_captured_is_said_and_done_without(gpu, bundle, pictures):
    gpu.uncapturable = True
    said: list[str] = []
    sink = ListSink()
    with opened(bundle, graph=True, say=said.append) as session:
        score(bundle, session, pictures, sink)
    assert len(sink.rows) == len(pictures)
    assert said == ["no CUDA graph: cuStreamBeginCapture: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"]
    assert gpu.made["replay"] == gpu.open["graph"] == 0


@pytest.fixture(scope="module")
def native_bundle(built) -> Bundle:
    return open_bundle(built("npr", "npr", geometry="native"))


@pytest.mark.parametrize("slots", [1, 3])
def test_tiles_give_what_they_give_on_the_cpu(native_bundle, gpu, small_pictures, slots):
    bundle = native_bundle
    assert bundle.tiling is not None
    small = bundle.tiling.smallest()
    images = [decode_rgb(path.read_bytes(), max_pixels=10**6) for path in small_pictures]
    views = [apply_geometry(bundle.geometry, each) for each in images]
    backend, _ = choose_backend("openvino")
    with closing(
        compile_graph(backend, bundle.graph, bundle.geometry, small, batch=1)
    ) as session:  # fmt: skip
        expected = infer(session, views)
    shapes = {"image": [1, -1, -1, 3], "rows": [-1], "columns": [-1], "carry": [1, small.channels]}
    options = GpuOptions(slots=slots)
    with (
        loaded(bundle.graph, shapes, TENSORS) as plan,
        closing(TensorRtTileSession(plan, bundle.geometry, small, outputs=1, options=options)) as s,
    ):
        np.testing.assert_array_equal(infer(s, views * 3), np.concatenate([expected] * 3))
