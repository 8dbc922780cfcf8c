"""A TensorRT plan on a GPU: deserialised once, with an execution context for each stream."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from trtdet.engine.cuda import Gpu
from trtdet.engine.tensorrt_library import Library, logger_of
from trtdet.errors import BackendError


class LoadedPlan:
    """A plan, deserialised on a GPU; whoever closes it closes the GPU with it.

    Raises BackendError, in TensorRT's words, for a plan that does not load, or has other tensors.
    """

    def __init__(
        self,
        library: Library,
        gpu: Gpu,
        plan: bytes,
        names: Collection[str],
        *,
        host_code: bool = False,
    ):
        self.tensorrt, self.gpu = library, gpu
        self.name = f"{library} {gpu.name}"
        self._log = logger_of(library.trt)
        self._log.messages.clear()
        self._config: Any = None
        self._cache: Any = None
        with gpu.current():
            self._runtime: Any = library.trt.Runtime(self._log)
            if host_code:  # a version-compatible plan brings a runtime of its own
                self._runtime.engine_host_code_allowed = True
            self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                raise BackendError(
                    f"{library} cannot load the plan: {self._why()}. Compile it again, "
                    "`trtdet compile BUNDLE --target current --force`"
                )
            count = self._engine.num_io_tensors
            found = {self._engine.get_tensor_name(index) for index in range(count)}
            if found != set(names):
                raise BackendError(f"the plan has the tensors {sorted(found)}, not {sorted(names)}")

    def context(self, *, eager: bool = True) -> Any:
        """An execution context, in the thread that will use it. Raises BackendError.

        TensorRT-RTX compiles kernels for the shapes that it meets: `eager` at once, so that what is
        judged is what scores; otherwise never, where every tile may have another shape.
        """
        if (config := self._runtime_config(eager)) is not None:
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context()
        if context is None:  # most often for want of memory
            raise BackendError(
                f"{self.tensorrt} cannot make an execution context: {self._why()}. Give fewer "
                "--streams, or compile for a smaller batch, `trtdet compile BUNDLE --target "
                "current --batch N`"
            )
        return context

    def _runtime_config(self, eager: bool) -> Any:
        """TensorRT-RTX's; None where there is no such thing."""
        kinds = getattr(self.tensorrt.trt, "DynamicShapesKernelSpecializationStrategy", None)
        if kinds is None or not hasattr(self._engine, "create_runtime_config"):
            return None
        if self._config is None:
            config = self._engine.create_runtime_config()
            config.dynamic_shapes_kernel_specialization_strategy = (
                kinds.EAGER if eager else kinds.NONE
            )
            if hasattr(config, "create_runtime_cache"):  # contexts share what they compile
                self._cache = config.create_runtime_cache()
                config.set_runtime_cache(self._cache)
            self._config = config
        return self._config

    def check_capturable(self, context: Any, stream: Any) -> None:
        """Raise BackendError where TensorRT says that this context cannot be captured."""
        ask = getattr(context, "is_stream_capturable", None)
        if ask is not None and not ask(stream.handle):
            raise BackendError(f"{self.tensorrt} says that the plan cannot be captured")

    def enqueue(self, context: Any, stream: Any) -> None:
        """Put the network into a stream. Raises BackendError where TensorRT refuses."""
        if not context.execute_async_v3(stream.handle):
            raise BackendError(f"{self.tensorrt} did not run the plan: {self._why()}")

    def close(self) -> None:
        """Let go of the engine and the GPU: no context of it may be left."""
        with self.gpu.current():
            self._config = self._cache = self._engine = self._runtime = None
        self.gpu.close()

    def _why(self) -> str:
        return self._log.last() or "it gave no reason"
