"""The options of commands that may score on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trtdet.commands.options import together
from trtdet.errors import BackendError

if TYPE_CHECKING:
    from trtdet.engine.bundle import Bundle
    from trtdet.engine.tensorrt import GpuOptions


_DEVICE = click.option(
    "--device",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="TensorRT: which GPU.",
)
_IN_FLIGHT = together(
    click.option(
        "--slots",
        type=click.IntRange(1, 64),
        default=3,
        show_default=True,
        help="TensorRT: batches in flight.",
    ),
    click.option(
        "--streams",
        type=click.IntRange(1, 64),
        help="TensorRT: batches on the GPU at once [slots].",
    ),
)
_PLANS = together(
    click.option("--no-graph", is_flag=True, help="TensorRT: launch without a CUDA graph."),
    click.option(
        "--no-build", is_flag=True, help="TensorRT: fail where there is no plan for this GPU."
    ),
    click.option(
        "--trust-plans",
        is_flag=True,
        help="TensorRT: load plans and kernels that were compiled elsewhere. They are code.",
    ),
)

backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", "tensorrt", "openvino"]),
    default="auto",
    show_default=True,
    help="What runs the network. A named one runs, or the command fails with the reason.",
)

# A command hands what it gets of them to `make_gpu_options`.
gpu_options = together(_DEVICE, _IN_FLIGHT, _PLANS)
bench_gpu_options = together(_DEVICE, _PLANS)  # it tries numbers of streams


def make_gpu_options(
    *,
    device: int,
    slots: int = 3,
    streams: int | None = None,
    no_graph: bool,
    no_build: bool,
    trust_plans: bool,
) -> GpuOptions:
    """What `gpu_options` gave, for a session; a missing plan is compiled, and said."""
    from trtdet.engine.tensorrt import GpuOptions

    return GpuOptions(
        device=device,
        slots=slots,
        streams=streams,
        graph=not no_graph,
        trust=trust_plans,
        on_miss=None if no_build else compile_for_this_gpu,
        say=say,
    )


def compile_for_this_gpu(bundle: Bundle, batch: int | None, device: int) -> None:
    """Compile the plan and the kernels that a session misses, and judge them."""
    try:
        from trtdet.build.prepare import prepare
    except ImportError as error:  # a packed submission has what scores alone
        raise BackendError(f"nothing here compiles a plan ({error}): give --backend") from error
    prepare(bundle, batch, say, device=device)


def say(line: str) -> None:
    """One line to standard error."""
    click.echo(line, err=True)
