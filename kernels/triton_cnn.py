"""`module_cnn` on a GPU: one launch per convolution for all modules and images; gradients by torch's convolutions."""

# pyright: reportCallIssue=false
# (triton adds the launch options)
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kernels.triton_backend import ACTIVATION, padded_width

TILE = 64


def widest_block(half: bool) -> int:
    """Channels of a block at most: beyond it the build for sm_90 spills registers."""
    return 32 if half else 16


def forward(
    images: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], strides: Sequence[int], activation: str
) -> Tensor:
    """Answers [B, M, C3, H', W']."""
    from kernels.triton_kernels import convolution

    values, shared = images.contiguous(), images.dim() == 4
    batch, n_modules = len(images), weights[0].shape[0]
    for layer, (weight, bias, stride) in enumerate(zip(weights, biases, strides, strict=True)):
        weight = weight.contiguous()
        n_out, n_in, k = weight.shape[1:4]
        height, width = values.shape[-2:]
        high, wide = -(-height // stride), -(-width // stride)
        out = values.new_empty(batch, n_modules, n_out, high, wide)
        size = n_in * height * width
        steps = (size, 0) if shared and layer == 0 else (n_modules * size, size)
        most = widest_block(values.element_size() == 2)
        block_in, block_out = min(most, padded_width(n_in)), min(most, padded_width(n_out))
        convolution[(-(-high * wide // TILE), -(-n_out // block_out), batch * n_modules)](
            values, weight, weight if bias is None else bias.contiguous(), out, n_modules, n_in, height, width, n_out,
            high, wide, stride, *steps, KERNEL=k, BIAS=bias is not None,
            ACTIVATION=ACTIVATION[activation if layer else "none"], PRECISION="ieee", TILE=TILE, BLOCK_IN=block_in,
            BLOCK_OUT=block_out, num_warps=4,
        )  # fmt: skip
        values = out
    return values


class _Nodes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plain: Callable[..., Tensor], strides: Sequence[int], activation: str, *t: Any) -> Tensor:
        ctx.plain = plain
        ctx.save_for_backward(*t)
        return forward(t[0], t[1:4], t[4:], strides, activation)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        kept, need = ctx.saved_tensors, ctx.needs_input_grad[3:]
        leaves = [t if t is None else t.detach().requires_grad_(n) for t, n in zip(kept, need, strict=True)]
        with torch.enable_grad():
            answers = ctx.plain(leaves[0], leaves[1:4], leaves[4:])
        wanted = [t for t in leaves if t is not None and t.requires_grad]
        found = iter(torch.autograd.grad(answers, wanted, grads[0]))
        return None, None, None, *(next(found) if n else None for n in need)


def module_cnn(
    images: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    strides: Sequence[int],
    activation: str,
    plain: Callable[..., Tensor],
) -> Tensor:
    """plain: (images, weights, biases) -> answers by torch, for the gradients."""
    return _Nodes.apply(  # pyright: ignore[reportReturnType]
        plain, tuple(strides), activation, images, *weights, *biases
    )
