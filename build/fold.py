"""Exact algebra on trained layers: fewer operations, the same function.

Everything is composed in float64 and rounded to float32 once.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn


def fold_batch_norms(network: nn.Module, method: str = "forward") -> fx.GraphModule:
    """Every BatchNorm2d that follows a Conv2d folded into it. `network` is left as it was.

    `method` becomes the new module's forward. Never done in half precision: rounding the
    statistics alone moves Tiny-LaDeDa's logits by 1.6.
    """
    tracer = fx.Tracer()
    tracer.traced_func_name = method
    traced = fx.GraphModule(network.eval(), tracer.trace(network))
    layers = dict(traced.named_modules())
    for node in traced.graph.nodes:
        norm = layers.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        before = node.args[0]
        conv = layers.get(str(before.target)) if before.op == "call_module" else None
        # A convolution that something else reads as well must keep its own output.
        if not isinstance(conv, nn.Conv2d) or len(before.users) != 1:
            continue
        traced.set_submodule(str(before.target), _with_batch_norm(conv, norm))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def flush_denormals(network: nn.Module) -> nn.Module:
    """Set weights below float32's smallest normal number to 0, in place.

    They add nothing that float32 can hold, and a CPU that does not flush them is slow on each.
    """
    tiny = torch.finfo(torch.float32).tiny
    with torch.no_grad():
        for weight in network.parameters():
            weight.masked_fill_(weight.abs() < tiny, 0.0)
    return network


def conv_from(
    weight: Tensor,
    bias: Tensor | None,
    stride: int = 1,
    groups: int = 1,
    padding: int | None = None,
) -> nn.Conv2d:
    """A float32 convolution from float64 weights [out, in / groups, k, k] and bias [out].

    Square and odd; zero padding k // 2 unless `padding` is given.
    """
    outputs, inputs, size, _ = weight.shape
    conv = nn.Conv2d(
        inputs * groups,
        outputs,
        size,
        stride,
        size // 2 if padding is None else padding,
        groups=groups,
        bias=bias is not None,
    )
    conv.weight = nn.Parameter(weight.float())
    conv.bias = None if bias is None else nn.Parameter(bias.float())
    return conv.eval()


def _with_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    if norm.running_mean is None or norm.running_var is None:
        raise TypeError("a BatchNorm without running statistics cannot be folded")
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = torch.zeros_like(scale) if conv.bias is None else conv.bias.double()
    folded = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
    )
    folded.weight = nn.Parameter((conv.weight.double() * scale.view(-1, 1, 1, 1)).float())
    bias = (bias - norm.running_mean.double()) * scale + norm.bias.double()
    folded.bias = nn.Parameter(bias.float())
    return folded.eval()
