"""A GPU made of the CPU: pycuda's driver and TensorRT's runtime as far as a session uses them.

Work in a stream is done later, by a thread of its own and in order, so that whoever forgets to wait
reads what is not there yet. Memory is poisoned when it is made and when it is let go, addresses are
real, and networks are the bundles' own graphs, run by OpenVINO. Everything that is opened is
counted.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType, SimpleNamespace
from weakref import WeakValueDictionary

import numpy as np

from tests.engine.host_kernels import library
from trtdet.engine.import_openvino import ov

POISON = 0xA5


class Fake:
    """The state of the device, and its two modules."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()  # what is held now
        self.made: Counter[str] = Counter()
        self.memory: dict[int, np.ndarray] = {}
        self.fails_after: int | None = None  # networks that still run before the device is lost
        self.memory_left = 1 << 34
        self.delay_s = 0.0
        self.uncapturable = self.empty_graphs = self.bad_cubin = False
        self.current = threading.local()
        self.driver = _driver(self)
        self.trt = _tensorrt(self)

    def hold(self, kind: str) -> None:
        self.open[kind] += 1
        self.made[kind] += 1

    def need_context(self) -> None:
        if not getattr(self.current, "depth", 0):
            raise self.driver.LogicError("invalid device context")


def plan_of(graph: Path, shapes: dict[str, list[int]] | None = None) -> bytes:
    """What the fake TensorRT takes for a plan."""
    return json.dumps({"graph": str(graph), "shapes": shapes}).encode()


class _Failure:
    """What broke in a stream: the next wait tells."""

    error: BaseException | None = None


class _Stream:
    def __init__(self, fake: Fake):
        fake.need_context()
        fake.hold("stream")
        self._fake, self.failure = fake, _Failure()
        self.handle = id(self)
        _STREAMS[self.handle] = self
        self.recorded: list | None = None  # while a graph is captured
        self.queue: SimpleQueue = SimpleQueue()
        arguments = (fake, self.queue, self.failure)
        threading.Thread(target=_work_off, args=arguments, daemon=True).start()

    def put(self, work) -> None:
        (self.queue.put if self.recorded is None else self.recorded.append)(work)

    def synchronize(self) -> None:
        assert self.recorded is None, "a wait in a capture"
        event = _Event(self._fake)
        event.record(self)
        event.synchronize()

    def __del__(self) -> None:
        self._fake.open["stream"] -= 1
        self.queue.put(None)


_STREAMS: WeakValueDictionary[int, _Stream] = WeakValueDictionary()


def _work_off(fake: Fake, queue: SimpleQueue, failure: _Failure) -> None:
    while (work := queue.get()) is not None:
        time.sleep(fake.delay_s)
        try:
            work()
        except Exception as error:  # as a device does it
            failure.error = error


class _Event:
    def __init__(self, fake: Fake):
        fake.need_context()
        self._fake, self._failure = fake, _Failure()
        self._done = threading.Event()
        self._done.set()

    def record(self, stream: _Stream) -> None:
        self._failure, self._done = stream.failure, threading.Event()
        stream.put(self._done.set)

    def synchronize(self) -> None:
        self._fake.need_context()
        assert self._done.wait(60)
        if self._failure.error is not None:
            raise self._fake.driver.Error(f"launch failed: {self._failure.error}")


class _Allocation:
    def __init__(self, fake: Fake, size: int):
        fake.need_context()
        if size > fake.memory_left:
            raise fake.driver.MemoryError("cuMemAlloc failed: out of memory")
        fake.hold("memory")
        fake.memory_left -= size
        self._fake, self.bytes = fake, np.full(size, POISON, np.uint8)
        self._address = self.bytes.ctypes.data
        fake.memory[self._address] = self.bytes

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        self._fake.need_context()
        self._fake.memory_left += self.bytes.nbytes
        self.bytes[:] = POISON
        self._fake.open["memory"] -= 1


class _PinnedBase:
    def __init__(self, fake: Fake, size: int):
        fake.need_context()
        fake.hold("pinned")
        self._fake = fake
        self._bytes = np.zeros(size, np.uint8)
        self.__array_interface__ = self._bytes.__array_interface__

    def free(self) -> None:
        self._fake.need_context()
        self._bytes[:] = POISON
        self._fake.open["pinned"] -= 1


def _move(fake: Fake, target: int, source: int, size: int, device: int) -> None:
    """Copy, but never past the end of an allocation of the device."""
    for address, memory in fake.memory.items():
        if address <= device < address + memory.nbytes:
            assert device + size <= address + memory.nbytes, "a copy past the end"
            break
    else:
        raise AssertionError("no such device memory")
    ctypes.memmove(target, source, size)


def _driver(fake: Fake) -> ModuleType:
    module = ModuleType("pycuda.driver")

    class Error(Exception):
        pass

    class LogicError(Error):
        pass

    class OutOfMemoryError(Error):
        pass

    class Context:
        def push(self) -> None:
            fake.current.depth = getattr(fake.current, "depth", 0) + 1

        def pop(self) -> None:
            fake.current.depth -= 1

        def detach(self) -> None:
            fake.open["context"] -= 1

    class Device:
        def __init__(self, index: int):
            assert index == 0

        @staticmethod
        def count() -> int:
            return 1

        def name(self) -> str:
            return "Fake GPU"

        def compute_capability(self) -> tuple[int, int]:
            return 8, 6

        def total_memory(self) -> int:
            return 1 << 34

        def retain_primary_context(self) -> Context:
            fake.hold("context")
            return Context()

    class Function:
        def __init__(self, name: str):
            self._library = library()
            self._kernel = getattr(self._library, name)

        def prepare(self, signature: str) -> None:
            self._signature = signature

        def prepared_async_call(self, grid, block, stream: _Stream, *arguments) -> None:
            fake.need_context()
            assert len(arguments) == len(self._signature)
            pointers = [ctypes.c_void_p(each) for each in arguments]
            numbers = (*grid, block[0])
            stream.put(lambda: self._library.launch(self._kernel, *numbers, *pointers))

    def pagelocked_zeros(size: int, dtype) -> np.ndarray:
        return np.asarray(_PinnedBase(fake, size))

    def htod(target: int, source: np.ndarray, stream: _Stream) -> None:
        fake.need_context()
        assert source.flags.c_contiguous
        address, size = source.ctypes.data, source.nbytes
        stream.put(lambda: _move(fake, target, address, size, target))

    def dtoh(target: np.ndarray, source: int, stream: _Stream) -> None:
        fake.need_context()
        address, size = target.ctypes.data, target.nbytes
        stream.put(lambda: _move(fake, address, source, size, source))

    module.Error, module.LogicError, module.MemoryError = Error, LogicError, OutOfMemoryError
    module.Device = Device
    module.init = lambda: None
    module.Stream = lambda: _Stream(fake)
    module.Event = lambda flags=0: _Event(fake)
    module.event_flags = SimpleNamespace(BLOCKING_SYNC=1, DISABLE_TIMING=2)
    module.mem_alloc = lambda size: _Allocation(fake, size)
    module.mem_get_info = lambda: (fake.memory_left, 1 << 34)
    module.pagelocked_zeros = pagelocked_zeros
    module.memcpy_htod_async, module.memcpy_dtoh_async = htod, dtoh
    module.memset_d8 = lambda address, value, size: ctypes.memset(address, value, size)
    module.memset_d8_async = lambda address, value, size, stream: stream.put(
        lambda: ctypes.memset(address, value, size)
    )

    def module_from_buffer(_cubin: bytes) -> SimpleNamespace:
        if fake.bad_cubin:
            raise Error("cuModuleLoadDataEx failed: device kernel image is invalid")
        return SimpleNamespace(get_function=Function)

    module.module_from_buffer = module_from_buffer
    return module


def _tensorrt(fake: Fake) -> ModuleType:
    module = ModuleType("tensorrt")

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    class Context:
        def __init__(self, model: ov.Model):
            fake.need_context()
            fake.hold("execution context")
            self._model, self._shapes, self._addresses = model, {}, {}
            self._request = (
                ov.Core()
                .compile_model(
                    model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
                )
                .create_infer_request()
            )

        def __del__(self) -> None:
            fake.open["execution context"] -= 1

        def set_input_shape(self, name: str, shape) -> bool:
            self._shapes[name] = tuple(shape)
            return self._model.input(name).partial_shape.compatible(ov.PartialShape(list(shape)))

        def set_tensor_address(self, name: str, address: int) -> bool:
            assert type(address) is int
            self._addresses[name] = address
            return True

        def execute_async_v3(self, handle: int) -> bool:
            fake.need_context()
            addresses, shapes = dict(self._addresses), dict(self._shapes)
            _STREAMS[handle].put(lambda: self._infer(addresses, shapes))
            return True

        def _infer(self, addresses: dict, shapes: dict) -> None:
            if fake.fails_after is not None:
                if fake.fails_after == 0:
                    raise RuntimeError("an illegal memory access was encountered")
                fake.fails_after -= 1
            feed = {}
            for port in self._model.inputs:
                (name,) = port.get_names()
                shape = shapes.get(name) or tuple(port.shape)
                dtype = port.element_type.to_dtype()
                feed[name] = _at(addresses[name], shape, dtype).copy()
            results = self._request.infer(feed)
            for port in self._request.model_outputs:
                (name,) = port.get_names()
                values = results[port]
                _at(addresses[name], values.shape, values.dtype)[...] = values

    class Engine:
        def __init__(self, model: ov.Model):
            self._model = model
            self._names = [next(iter(each.get_names())) for each in (*model.inputs, *model.outputs)]
            self.num_io_tensors = len(self._names)

        def get_tensor_name(self, index: int) -> str:
            return self._names[index]

        def create_execution_context(self) -> Context:
            return Context(self._model)

    class Runtime:
        def __init__(self, logger):
            self._logger = logger

        def deserialize_cuda_engine(self, plan: bytes):
            try:
                record = json.loads(plan)
            except ValueError:
                self._logger.log(ILogger.ERROR, "Serialization assertion failed: magic tag")
                return None
            model = ov.Core().read_model(record["graph"])
            if record["shapes"]:
                model.reshape(record["shapes"])
            return Engine(model)

    module.__version__ = "10.99.0"
    module.ILogger, module.Runtime = ILogger, Runtime
    return module


def _bindings(fake: Fake) -> ModuleType:
    """cuda-bindings, as far as a graph is captured with it: every call gives a code first."""
    module = ModuleType("cuda.bindings.driver")

    class Graph:
        def __init__(self, works: list):
            self.works = works
            fake.hold("graph")

    def begin(handle: int, _mode) -> tuple[int]:
        if fake.uncapturable:
            return (Code(900),)
        _STREAMS[handle].recorded = []
        return (Code(0),)

    def end(handle: int) -> tuple[int, Graph]:
        stream = _STREAMS[handle]
        works, stream.recorded = stream.recorded, None
        return Code(0), Graph([] if fake.empty_graphs else works)

    def launch(graph: Graph, handle: int) -> tuple[int]:
        fake.made["replay"] += 1
        for work in graph.works:
            _STREAMS[handle].put(work)
        return (Code(0),)

    def destroy(_graph: Graph) -> tuple[int]:
        fake.open["graph"] -= 1
        return (Code(0),)

    class Code(int):
        name = property(lambda self: {900: "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"}[int(self)])

    module.CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)
    module.cuStreamBeginCapture, module.cuStreamEndCapture = begin, end
    module.cuGraphInstantiate = lambda graph, _flags: (Code(0), Graph(graph.works))
    module.cuGraphLaunch = launch
    module.cuGraphExecDestroy = module.cuGraphDestroy = destroy
    return module


def _at(address: int, shape, dtype) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(memory, dtype).reshape(shape)


def install(monkeypatch) -> Fake:
    """The fake in place of pycuda and TensorRT, for one test."""
    fake = Fake()
    pycuda = ModuleType("pycuda")
    pycuda.driver = fake.driver
    monkeypatch.setitem(sys.modules, "pycuda", pycuda)
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake.driver)
    monkeypatch.setitem(sys.modules, "tensorrt", fake.trt)
    monkeypatch.setattr("trtdet.engine.tensorrt_status._driver", lambda: "none is needed")
    bindings = ModuleType("cuda.bindings")
    bindings.driver = _bindings(fake)
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", bindings.driver)
    return fake
