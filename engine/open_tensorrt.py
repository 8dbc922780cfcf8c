"""From a bundle to a session on the GPU: the library, the device, the plan and the kernels."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from trtdet.engine.bundle import GRAPH, INPUT_NAME, OUTPUT_NAME, Bundle
from trtdet.engine.cuda import Gpu
from trtdet.engine.kernels import find_kernels
from trtdet.engine.loaded_plan import LoadedPlan
from trtdet.engine.plan_key import VERSION_COMPATIBLE
from trtdet.engine.plans import FoundPlan, WantedPlan, find_plan
from trtdet.engine.resample import gpu_recipe
from trtdet.engine.staging import KERNELS
from trtdet.engine.tensorrt import GpuOptions, TensorRtSession
from trtdet.engine.tensorrt_library import Library, load_library
from trtdet.engine.tensorrt_tiles import TENSORS, TensorRtTileSession
from trtdet.errors import PlanMissError


def open_tensorrt(
    bundle: Bundle, *, batch: int | None = None, options: GpuOptions | None = None
) -> TensorRtSession | TensorRtTileSession:
    """A session that runs the bundle's plan for this machine.

    `batch` None: the newest plan's, whatever that is. Where there is none, `options.on_miss` is
    asked to compile one. Raises PlanMissError when there is none after all, BackendError when it
    does not load or its memory does not suffice.
    """
    options, views = options or GpuOptions(), bundle.geometry.views
    flavours = (options.flavour,) if options.flavour else ("tensorrt", "tensorrt-rtx")
    library = load_library(*flavours, lean=True)
    with ExitStack() as stack:
        gpu = Gpu(options.device)
        stack.callback(gpu.close)
        try:
            found = _find(bundle, batch, library, gpu, options)
            names = (INPUT_NAME, OUTPUT_NAME) if bundle.tiling is None else TENSORS
            host_code = found.key.option(VERSION_COMPATIBLE) is not None
            plan = LoadedPlan(library, gpu, found.data, names, host_code=host_code)
            stack.pop_all()
            stack.callback(plan.close)
            session = _session(bundle, batch or found.key.batch // views, plan, options)
        except Exception as error:
            reason = gpu.reason(error)
            if reason is error:
                raise
            raise reason from error
        session.probe_logits = found.probe_logits
        stack.pop_all()
    if bundle.precision != "fp32" and not found.verdict and options.plan is None:
        options.say(
            f"{found.path.name} was not judged: `trtdet compile {bundle.path} --target current`"
        )
    return session


def _find(
    bundle: Bundle, batch: int | None, library: Library, gpu: Gpu, options: GpuOptions
) -> FoundPlan:
    wanted = WantedPlan(
        flavour=library.flavour,
        version=library.trt.__version__,
        target=gpu.target,
        graph_sha256=bundle.hashes[GRAPH],
        batch=batch and batch * bundle.geometry.views,
        views=bundle.geometry.views,
        tile=bundle.tiling.tile if bundle.tiling else None,
        device=gpu.name,
        lean=library.lean,
    )
    look = partial(
        find_plan, bundle.plans, wanted,
        trust=options.trust, on_line=options.say, only=options.plan,
    )  # fmt: skip
    try:
        return look()
    except PlanMissError as miss:
        if options.on_miss is None:
            raise
        options.say(str(miss))
        options.on_miss(bundle, batch, options.device)
    return look()


def _session(
    bundle: Bundle, batch: int, plan: LoadedPlan, options: GpuOptions
) -> TensorRtSession | TensorRtTileSession:
    outputs = len(bundle.outputs)
    if bundle.tiling is not None:
        return TensorRtTileSession(
            plan, bundle.geometry, bundle.tiling, outputs=outputs, options=options
        )
    return TensorRtSession(
        plan,
        bundle.geometry,
        batch=batch,
        outputs=outputs,
        cubin=_kernels(bundle, plan.gpu, options),
        options=options,
    )


def _kernels(bundle: Bundle, gpu: Gpu, options: GpuOptions) -> bytes | None:
    """The kernels that resize, compiled for this GPU; None where the detector needs none."""
    if gpu_recipe(bundle.geometry) is None:
        return None
    cubin = find_kernels(bundle.path, gpu.target, trust=options.trust, on_line=options.say)
    if cubin is not None:
        try:
            with gpu.current():
                gpu.kernels(cubin, KERNELS, "PPP")
        except gpu.driver.Error as error:  # a compiler that is newer than the driver, most often
            options.say(f"the kernels do not load ({error}): images are resized on the CPU")
            return None
        return cubin
    options.say(
        f"{bundle.name} has no kernels for {gpu.target}: images are resized on the CPU, to the "
        f"same bytes (`trtdet compile {bundle.path} --target current` compiles them)"
    )
    return None
